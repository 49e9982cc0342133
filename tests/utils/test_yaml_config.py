import pytest

from ghn_pyg.utils.yaml_config import read_fields


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.yaml"


def test_changes_of_fields_that_share_an_alias(path):
    path.write_text("one: &shared {size: 3}\nother: *shared\nempty:\nrate: 1e-3\n")
    assert read_fields(path, ["one.size=5", "empty.size=7"]) == {
        "one": {"size": 5}, "other": {"size": 3}, "empty": {"size": 7}, "rate": 0.001
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 3", "has no fields, expected lines such as epochs: 300"),
        ("", "has no fields"),
        ("a: [", "cannot read the configuration .*mine.yaml: while parsing"),
        ("a: 2020-13-45", "cannot read the configuration .*month"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_faulty_files(path, text, message):
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_fields(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epochs", "form name=value, got 'epochs'"),
        ("epochs=[", r"cannot read the value of 'epochs=\['"),
        ("seed=2020-13-45", "cannot read the value of 'seed=2020-13-45': month"),
        ("zero.size=5", r"'zero\.size=5' changes a field of zero, which is 0"),
    ],
)
def test_faulty_changes(path, change, message):
    path.write_text("zero: 0")
    with pytest.raises(ValueError, match=message):
        read_fields(path, [change])


def test_a_missing_file(path):
    with pytest.raises(ValueError, match=r"cannot read the configuration .*mine\.yaml: .*No such file"):
        read_fields(path)
