import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module
from ghn_pyg.tracing.kept import Kept, enters
from ghn_pyg.tracing.rules import norms as rules_norms
from tests.tracing.helpers import assert_refused, assert_same_shapes, calls, kinds, network, rules_without_case, weight

MAP = torch.rand(2, 3, 17, 13)
VOLUME = torch.rand(2, 3, 7, 11, 13)
TOKENS = torch.rand(2, 7, 5)

CASES = [
    (F.batch_norm, (MAP, torch.zeros(3), torch.ones(3), weight(3), weight(3)), {}),
    (F.batch_norm, (MAP, None, None, weight(3)), {"training": True}),
    (F.batch_norm, (MAP, torch.zeros(3), torch.ones(3)), {}),
    (F.batch_norm, (MAP[:, :, 0, 0], None, None), {"training": True}),
    (F.instance_norm, (MAP,), {}),
    (F.instance_norm, (MAP,), {"weight": weight(3), "bias": weight(3)}),
    (F.layer_norm, (TOKENS, (5,), weight(5), weight(5)), {}),
    (F.layer_norm, (TOKENS, [7, 5]), {"weight": weight(7, 5), "eps": 1e-3}),
    (F.layer_norm, (TOKENS, (5,)), {}),
    (torch.layer_norm, (TOKENS, (5,), weight(5)), {}),
    (F.rms_norm, (TOKENS, (5,), weight(5)), {}),
    (F.rms_norm, (TOKENS, (7, 5)), {"eps": 1e-3}),
    (torch.rms_norm, (TOKENS, (5,), weight(5)), {}),
    (F.group_norm, (MAP.repeat(1, 2, 1, 1), 3, weight(6), weight(6)), {}),
    (F.group_norm, (MAP, 3), {}),
    (torch.group_norm, (MAP, 3, weight(3)), {}),
]

REFUSED = [
    (F.batch_norm, (MAP, torch.zeros(5), torch.ones(5)), {}),
    (F.batch_norm, (MAP, None, None, weight(5)), {"training": True}),
    (F.layer_norm, (TOKENS, (7,), weight(7)), {}),
]


@calls(CASES)
def test_the_shape_is_what_pytorch_computes(function, args, kwargs):
    assert_same_shapes(function, args, kwargs)


def test_every_rule_has_a_case():
    assert rules_without_case([rules_norms], CASES) == set()


@calls(REFUSED)
def test_what_pytorch_refuses_fails(function, args, kwargs):
    assert_refused(function, args, kwargs)


NODES = {
    "batch norm": (nn.BatchNorm2d(3), MAP, [("bn", "weight", [3, 1, 1, 1])]),
    "batch norm of vectors": (nn.BatchNorm1d(5), TOKENS[0], [("bn", "weight", [5, 1, 1, 1])]),
    "batch norm of volumes": (nn.BatchNorm3d(3), VOLUME, [("bn", "weight", [3, 1, 1, 1])]),
    "instance norm": (nn.InstanceNorm2d(3, affine=True), MAP, [("bn", "weight", [3, 1, 1, 1])]),
    "layer norm": (nn.LayerNorm(5), TOKENS, [("ln", "weight", [5, 1, 1, 1])]),
    "layer norm without bias": (nn.LayerNorm(5, bias=False), TOKENS, [("ln", "weight", [5, 1, 1, 1])]),
    "group norm": (nn.GroupNorm(3, 3), MAP, [("ln", "weight", [3, 1, 1, 1])]),
    "rms norm": (nn.RMSNorm(5), TOKENS, [("ln", "weight", [5, 1, 1, 1])]),
}


@pytest.mark.parametrize(("layer", "inputs", "nodes"), NODES.values(), ids=NODES)
def test_a_norm_is_a_node(layer, inputs, nodes):
    graph = from_module(layer, inputs)
    found = zip(kinds(graph), graph.node_names, graph.node_shape.tolist(), strict=True)
    assert list(found) == [("input", "input", [0, 0, 0, 0]), *nodes]
    assert graph.kept == {}
    assert sorted(graph.param_names[1]) == sorted(name for name, _ in layer.named_parameters())


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(3), nn.GroupNorm(3, 3), nn.InstanceNorm2d(3, affine=True), nn.LayerNorm((17, 13))]
)
def test_the_bias_of_a_norm_is_decoded_from_its_gain(layer):
    graph = from_module(layer, MAP)
    assert graph.param_names == [[], ["weight", "bias"]]
    assert [spec.role for spec in graph.params[1]] == ["gain", "bias"]


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
    graph = from_module(network(lambda self, x: self.n(x) + self.b, n=nn.RMSNorm(5), b=weight(5)), TOKENS)
    assert graph.kept == {}
    assert graph.param_names == [[], ["n.weight", "b"]]


def test_what_is_neither_a_gain_nor_one_less_is_kept():
    graph = from_module(network(lambda self, x: F.layer_norm(x, (5,), 2 - self.g), g=weight(5)), TOKENS)
    assert graph.kept == {"g": Kept.LAYER_SCALE}


def test_a_table_of_gains_and_biases_is_kept():
    graph = from_module(network(lambda self, x: F.layer_norm(x, (5,), *self.g), g=weight(2, 5)), TOKENS)
    assert graph.kept == {"g": enters("a norm as gain and bias at once")}
