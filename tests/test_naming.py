import pytest

from ghn_pyg.naming import similar

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
