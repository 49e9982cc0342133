import pytest

from ghn_pyg.zoo import timm_models


@pytest.mark.parametrize("name", ["test_vit", "test_vit.r160_in1k"])
def test_build(name):
    network = timm_models.build(name)
    assert type(network).__module__ == "timm.models.vision_transformer"
    assert network.head.weight.shape == (1000, 64)
