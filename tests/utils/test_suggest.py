import pytest

from ghn_pyg.utils.suggest import printable, similar, some

NAMES = ["resnet18", "resnet34", "ResNet50", "resnet101", "resnet152", "wide_resnet50_2", "vit_b_16"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet", ["resnet18", "resnet34", "ResNet50", "resnet101", "resnet152"]),
        ("resnet1", ["resnet18", "resnet101", "resnet152"]),
        ("RESNET5", ["ResNet50"]),
        ("vit_16", ["vit_b_16"]),
        ("Q", []),
        ("", []),
    ],
)
def test_names_that_are_begun_come_before_those_spelt_alike(name, expected):
    assert similar(name, NAMES)[: len(expected) or None] == expected


def test_the_cutoff():
    assert similar("resnet19", ["resnet18", "densenet121"], cutoff=0.8) == ["resnet18"]
    assert similar("resnet19", ["densenet121"], cutoff=0.4) == ["densenet121"]


@pytest.mark.parametrize(
    ("count", "text"), [(0, ""), (2, "n0, n1"), (3, "n0, n1, n2"), (1234, "n0, n1, n2 and 1,231 more")]
)
def test_the_first_of_many(count, text):
    assert some([f"n{at}" for at in range(count)]) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("naïve – 数 😀", "naïve – 数 😀"),
        ("\x1b]0;t\x07", "\\x1b]0;t\\x07"),
        ("a\nb\x9bc\u202ed", "a\\nb\\x9bc\\u202ed"),
        ("\udc80", "\\udc80"),
        ("\x1b" * 1501, "\\x1b" * 250 + " … " + "\\x1b" * 250),
        ("a" * 1500 + "b" * 1500, "a" * 1000 + " … " + "b" * 1000),
    ],
)
def test_texts_for_a_terminal(text, expected):
    assert printable(text) == expected
