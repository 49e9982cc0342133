import pytest

from ghn_pyg.zoo import timm_models


@pytest.mark.parametrize("name", ["test_vit", "test_vit.r160_in1k"])
def test_build(name):
    network = timm_models.build(name)
    assert type(network).__module__ == "timm.models.vision_transformer"
    assert network.head.weight.shape == (1000, 64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test-vits", r"timm has no network 'test-vits'; did you mean timm/test_vit"),
        ("xylophone", r"'xylophone'; `ghn-pyg models --networks` lists all names"),
        ("test_vit.nothing", r"did you mean timm/test_vit"),
        ("hf-hub:timm/resnet18.a1_in1k", "timm has no network"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        timm_models.build(name)
