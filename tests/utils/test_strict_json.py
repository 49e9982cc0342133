import pytest

from ghn_pyg.utils.strict_json import parse_json


def test_plain_values():
    assert parse_json(b'{"a": [1, -2.5e3, true, null, "\xc3\xa9"], "b": {"a": 3}}') == {
        "a": [1, -2500.0, True, None, "é"], "b": {"a": 3}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "not finite"), ("[-Infinity]", "not finite"), ("1e400", "not finite"), ("9" * 5000, "limit"),
        ('{"a": 1, "a": 1}', "its name 'a' has several values"), ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"), (b"\xff", "codec"), ("\ufeff{}", "BOM"), ("", "Expecting value"),
    ],
)  # fmt: skip
def test_other_texts(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)
