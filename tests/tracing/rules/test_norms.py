import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module
from ghn_pyg.tracing.kept_reasons import Kept, enters
from tests.tracing.helpers import kinds, weight
from tests.tracing.rules.helpers import graph_of, small_ghn

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


# --- norms without a gain, which a parameter that follows is ---------------------------------------------------------

# Norm without a gain, what enters it, shape of the gain that follows, and type of the node.
WITHOUT_GAIN = {
    "layer norm": (lambda x: F.layer_norm(x, (5,)), TOKENS, (5,), "ln"),
    "layer norm, one row": (lambda x: F.layer_norm(x, (5,)), TOKENS[0], (1, 5), "ln"),
    "layer norm, one token": (lambda x: F.layer_norm(x, (5,)), TOKENS, (1, 1, 5), "ln"),
    "layer norm with ones": (lambda x: F.layer_norm(x, (5,), torch.ones(5), torch.zeros(5)), TOKENS, (5,), "ln"),
    "rms norm": (lambda x: F.rms_norm(x, (5,)), TOKENS, (5,), "ln"),
    "group norm": (lambda x: F.group_norm(x, 3), MAP, (3, 1, 1), "ln"),
    "group norm of vectors": (lambda x: F.group_norm(x, 5), TOKENS[0], (5,), "ln"),
    "instance norm": (F.instance_norm, MAP, (1, 3, 1, 1), "bn"),
    "batch norm": (lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3)), MAP, (3, 1, 1), "bn"),
    "batch norm, one map": (lambda x: F.batch_norm(x, None, None, training=True), MAP, (1, 3, 1, 1), "bn"),
    "batch norm of vectors": (lambda x: F.batch_norm(x, None, None, training=True), TOKENS[0], (5,), "bn"),
    "a module": (nn.LayerNorm(5, elementwise_affine=False), TOKENS, (5,), "ln"),
}  # fmt: skip
GAINS = {
    "gain": (lambda self, x: x * self.g, ["g"], 0),
    "gain in place": (lambda self, x: x.mul_(self.g), ["g"], 0),
    "gain less 1": (lambda self, x: x * (1 + self.g), ["g"], 1),
    "gain and bias": (lambda self, x: x * self.g + self.b, ["g", "b"], 0),
    "gain less 1 and bias": (lambda self, x: (self.g + 1) * x + self.b, ["g", "b"], 1),
    "addcmul": (lambda self, x: torch.addcmul(self.b, x, self.g), ["g", "b"], 0),
}


@pytest.mark.parametrize(("affine", "names", "added"), GAINS.values(), ids=GAINS)
@pytest.mark.parametrize(("norm", "x", "shape", "kind"), WITHOUT_GAIN.values(), ids=WITHOUT_GAIN)
def test_a_gain_and_a_bias_may_follow_a_norm(norm, x, shape, kind, affine, names, added):
    members = {name: weight(*shape) for name in names}
    graph = graph_of(lambda self, x: affine(self, norm(x)), x, **members)
    assert kinds(graph) == ["input", kind]
    assert graph.kept == {}
    assert [(spec.name, spec.shape, spec.role) for spec in graph.params[1]] == [
        (name, shape, role) for name, role in zip(names, ("gain", "bias"), strict=False)
    ]
    assert graph.params[1][0].added == added
    assert graph.node_shape[1].tolist() == [max(shape), 1, 1, 1]
    prediction = small_ghn().predict(graph)
    for name in names:
        assert prediction[name].shape == shape
        assert prediction[name].unique().numel() == 3  # as many channels as are decoded


NO_GAINS = {
    "a number": (lambda self, x: F.layer_norm(x, (5,)) * self.g, (1,)),
    "of tokens": (lambda self, x: F.layer_norm(x, (5,)) * self.g, (7, 1)),
    "after an activation function": (lambda self, x: F.layer_norm(x, (5,)).relu() * self.g, (5,)),
    "of no norm": (lambda self, x: x.relu() * self.g, (5,)),
}


@pytest.mark.parametrize(("forward", "shape"), NO_GAINS.values(), ids=NO_GAINS)
def test_other_factors_of_norms_are_kept(forward, shape):
    assert graph_of(forward, TOKENS, g=weight(*shape)).kept == {"g": Kept.LAYER_SCALE}


def test_an_activation_that_scales_a_norm_without_gain_is_folded():
    def forward(self, x):
        scale, shift = self.a(x.mean(1, keepdim=True)).chunk(2, -1)
        return self.b(F.layer_norm(x, (5,)) * (1 + scale) + shift)

    graph = graph_of(forward, TOKENS, a=nn.Linear(5, 10), b=nn.Linear(5, 3))
    assert "ln" not in kinds(graph)
    assert graph.kept == {}
