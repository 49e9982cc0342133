"""Networks for small images: resolution is kept, a second call changes nothing, others are refused."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from ghn_pyg.zoo.small_images import adapt_to_small_inputs

# An early layer and the size of the maps that it gives for a 32×32 image.
FAMILIES = {
    "resnet18": ("maxpool", 32),
    "wide_resnet50_2": ("maxpool", 32),
    "densenet121": ("features.pool0", 32),
    "mobilenet_v2": ("features.4", 32),
    "mobilenet_v3_small": ("features.4", 32),
    "vgg11_bn": ("features.9", 32),
    "alexnet": ("features.2", 26),
    "mnasnet0_5": ("layers.0", 32),
    "convnext_tiny": ("features.0", 29),
    "shufflenet_v2_x0_5": ("conv1", 32),
    "googlenet": ("maxpool1", 32),
}


def build(name: str) -> nn.Module:
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, num_classes=7, **options).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_small_image_keeps_its_resolution_and_a_second_call_changes_nothing(name):
    model = adapt_to_small_inputs(build(name))
    path, size = FAMILIES[name]
    sizes = []
    layer = model.get_submodule(path)
    hook = layer.register_forward_hook(lambda module, args, out: sizes.append(tuple(out.shape[-2:])))
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert sizes == [(size, size)]
    hook.remove()
    before = copy.deepcopy(model)
    assert adapt_to_small_inputs(model) is model
    assert repr(model) == repr(before)
    for (key, value), expected in zip(model.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(value, expected), key


def test_the_stem_is_the_centre_of_its_filters():
    model = build("resnet18")
    wide = model.conv1.weight.detach().clone()
    model.conv1.weight.requires_grad_(False)
    adapt_to_small_inputs(model)
    assert torch.equal(model.conv1.weight, wide[:, :, 2:5, 2:5])
    assert not model.conv1.weight.requires_grad


def test_other_networks_are_refused_untouched():
    model = torchvision.models.vit_b_32(num_classes=7)
    before = repr(model)
    with pytest.raises(TypeError, match="VisionTransformer has no version for small inputs; expected one of ResNet"):
        adapt_to_small_inputs(model)
    assert repr(model) == before
