"""Layers of PyTorch's extensions."""

import pytest
import torch
from torch import nn
from torchvision.ops import DeformConv2d

from ghn_pyg import ParamSpec
from tests.tracing.helpers import assert_same_shapes, kinds, sources
from tests.tracing.rules.helpers import graph_of

X = torch.rand(2, 6, 11, 13)


@pytest.mark.parametrize("masked", [False, True])
def test_a_deformable_convolution_enters_from_its_offsets_too(masked):
    def forward(self, x):
        return self.conv(x, self.offset(x), *([self.mask(x).sigmoid()] if masked else []))

    members = {"offset": nn.Conv2d(6, 12, 3, bias=False), "mask": nn.Conv2d(6, 6, 3, bias=False)}
    graph = graph_of(forward, X[:, :, :12], conv=DeformConv2d(6, 7, (2, 3), padding=(0, 0), stride=1), **members)
    entering = ["input", "offset.weight", *["mask.weight"] * masked]
    assert kinds(graph) == ["input", *["conv"] * (2 + masked), "bias"]
    assert sources(graph)["conv.weight"] == entering
    assert graph.params[-2:] == [
        [ParamSpec("conv.weight", (7, 6, 2, 3), "weight")], [ParamSpec("conv.bias", (7,), "bias")]
    ]  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 3])
def test_shapes(stride, groups):
    conv = DeformConv2d(6, 9, 3, stride=stride, dilation=2, padding=1, groups=groups, bias=False)
    size = [(side + 2 - 5) // stride + 1 for side in (11, 13)]
    weight = conv.weight.detach()
    assert_same_shapes(conv.forward.__func__, (conv, X, torch.rand(2, 18, *size)), {})
    assert weight.shape == (9, 6 // groups, 3, 3)
