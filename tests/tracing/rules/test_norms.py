import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module
from ghn_pyg.tracing.kept_reasons import Kept, enters
from tests.tracing.helpers import kinds, weight
from tests.tracing.rules.helpers import graph_of

MAP = torch.rand(2, 3, 17, 13)
VOLUME = torch.rand(2, 3, 7, 11, 13)
TOKENS = torch.rand(2, 7, 5)

# Layer, input, type of its node and channels.
NODES = {
    "batch norm": (nn.BatchNorm2d(3), MAP, "bn", 3),
    "batch norm of vectors": (nn.BatchNorm1d(5), TOKENS[0], "bn", 5),
    "batch norm of volumes": (nn.BatchNorm3d(3), VOLUME, "bn", 3),
    "instance norm": (nn.InstanceNorm2d(3, affine=True), MAP, "bn", 3),
    "layer norm": (nn.LayerNorm(5), TOKENS, "ln", 5),
    "layer norm without bias": (nn.LayerNorm(5, bias=False), TOKENS, "ln", 5),
    "layer norm over two dimensions": (nn.LayerNorm((17, 13)), MAP, "ln", 17),
    "group norm": (nn.GroupNorm(3, 3), MAP, "ln", 3),
    "rms norm": (nn.RMSNorm(5), TOKENS, "ln", 5),
}


@pytest.mark.parametrize(("layer", "inputs", "kind", "channels"), NODES.values(), ids=NODES)
def test_a_norm_is_a_node_with_gain_and_bias(layer, inputs, kind, channels):
    graph = from_module(layer, inputs)
    names = [name for name, _ in layer.named_parameters()]
    assert (kinds(graph), graph.node_names) == (["input", kind], ["input", "weight"])
    assert graph.node_shape[1].tolist()[0] == channels
    assert [(spec.name, spec.role) for spec in graph.params[1]] == list(zip(names, ("gain", "bias"), strict=False))
    assert graph.kept == {}


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.BatchNorm2d(5, affine=False), MAP),
        (nn.InstanceNorm2d(5), MAP),
        (nn.LayerNorm((15, 11), elementwise_affine=False), MAP),
        (nn.GroupNorm(5, 5, affine=False), MAP),
    ],
)
def test_a_norm_without_gain_is_folded(layer, x):
    graph = from_module(nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), layer, nn.Conv2d(5, 2, 1, bias=False)), x)
    assert graph.node_names == ["input", "0.weight", "2.weight"]


def test_a_norm_without_bias_gets_one():
    graph = graph_of(lambda self, x: self.n(x) + self.b, TOKENS, n=nn.RMSNorm(5), b=weight(5))
    assert graph.kept == {}
    assert graph.param_names == [[], ["n.weight", "b"]]


def test_what_is_neither_a_gain_nor_one_less_is_kept():
    graph = graph_of(lambda self, x: F.layer_norm(x, (5,), 2 - self.g), TOKENS, g=weight(5))
    assert graph.kept == {"g": Kept.LAYER_SCALE}


def test_a_table_of_gains_and_biases_is_kept():
    graph = graph_of(lambda self, x: F.layer_norm(x, (5,), *self.g), TOKENS, g=weight(2, 5))
    assert graph.kept == {"g": enters("a norm as gain and bias at once")}
