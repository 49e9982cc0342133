"""Which nodes and parameters a layer makes, and how weights are stored."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import ParamSpec, from_module
from tests.tracing.helpers import kinds, weight
from tests.tracing.rules.helpers import graph_of

LINE, MAP, VOLUME = torch.rand(2, 3, 23), torch.rand(2, 3, 17, 13), torch.rand(2, 3, 7, 11, 13)
TOKENS = torch.rand(2, 7, 5)
IDS = torch.tensor([[4, 1, 0], [2, 2, 3]])

# Layer, input, type and shape of its node, and how its weight is stored.
LAYERS = {
    "conv": (nn.Conv2d(3, 5, 7), MAP, "conv", [5, 3, 7, 7], ("out_in", 1)),
    "conv without bias": (nn.Conv2d(3, 5, (7, 2), bias=False), MAP, "conv", [5, 3, 7, 2], ("out_in", 1)),
    "dilated": (nn.Conv2d(3, 5, 3, dilation=2), MAP, "conv", [5, 3, 3, 3], ("out_in", 1)),
    "grouped": (nn.Conv2d(3, 6, 5, groups=3), MAP, "sep_conv", [6, 1, 5, 5], ("out_in", 1)),
    "dilated, grouped": (nn.Conv2d(3, 6, 5, groups=3, dilation=2), MAP, "dil_conv", [6, 1, 5, 5], ("out_in", 1)),
    "half dilated": (nn.Conv2d(3, 6, 5, groups=3, dilation=(1, 2)), MAP, "sep_conv", [6, 1, 5, 5], ("out_in", 1)),
    "conv1d": (nn.Conv1d(3, 5, 7), LINE, "conv", [5, 3, 7, 1], ("out_in", 1)),
    "conv3d": (nn.Conv3d(3, 5, (2, 3, 7), bias=False), VOLUME, "conv", [5, 3, 3, 7], ("out_in", 1)),
    "transposed": (nn.ConvTranspose2d(3, 5, 7, bias=False), MAP, "conv", [5, 3, 7, 7], ("in_out", 1)),
    "transposed conv1d": (nn.ConvTranspose1d(3, 5, 7), LINE, "conv", [5, 3, 7, 1], ("in_out", 1)),
    "transposed, grouped": (nn.ConvTranspose2d(3, 6, 5, groups=3), MAP, "sep_conv", [6, 1, 5, 5], ("in_out", 3)),
    "transposed, dilated, grouped": (
        nn.ConvTranspose2d(3, 6, 5, groups=3, dilation=2), MAP, "dil_conv", [6, 1, 5, 5], ("in_out", 3)
    ),
    "linear": (nn.Linear(5, 11), TOKENS, "conv", [11, 5, 1, 1], ("out_in", 1)),
    "embedding": (nn.Embedding(11, 7), IDS, "pos_enc", [1, 7, 3, 3], ("out_in", 1)),
    "embedding bag": (nn.EmbeddingBag(11, 7), IDS, "pos_enc", [1, 7, 3, 3], ("out_in", 1)),
}  # fmt: skip


@pytest.mark.parametrize(("layer", "x", "kind", "shape", "stored"), LAYERS.values(), ids=LAYERS)
def test_a_layer_is_a_node_for_its_weight_and_one_for_its_bias(layer, x, kind, shape, stored):
    graph = from_module(layer, x)
    bias = getattr(layer, "bias", None) is not None
    assert graph.node_names == ["input", "weight", *["bias"] * bias]
    assert kinds(graph) == ["input", kind, *["bias"] * bias]
    assert graph.node_shape.tolist() == [[0, 0, 0, 0], shape, *[[shape[0], 1, 1, 1]] * bias]
    assert graph.edge_index.tolist() == [list(range(1 + bias)), list(range(1, 2 + bias))]
    role = "position" if kind == "pos_enc" else "weight"
    layout, groups = stored
    assert graph.params[1] == [ParamSpec("weight", tuple(layer.weight.shape), role, layout, groups)]
    assert graph.kept == {}


COMPUTED = {
    "scaled": lambda self: self.w * 0.1,
    "standardised": lambda self: (self.w - self.w.mean((1, 2, 3), keepdim=True)) / self.w.std((1, 2, 3), keepdim=True),
    "standardised with var_mean": lambda self: (lambda var, mean: (self.w - mean) * (var + 1e-5).rsqrt())(
        *torch.var_mean(self.w, (1, 2, 3), keepdim=True)
    ),
    "standardised with batch norm": lambda self: F.batch_norm(
        self.w.reshape(1, 5, -1), None, None, training=True
    ).reshape_as(self.w),
    "standardised with the gain of a batch norm": lambda self: F.batch_norm(
        self.w.reshape(1, 5, -1), None, None, self.g.view(-1), training=True
    ).reshape_as(self.w),
    "normalised": lambda self: F.normalize(self.w, dim=1),
    "binary": lambda self: self.w + (self.w.sign() - self.w).detach(),
    "masked": lambda self: self.w * torch.ones(5, 3, 7, 7).tril(),
    "reshaped": lambda self: self.w.flatten(1).view(5, 3, 7, 7),
    "of another type": lambda self: self.w.double().float(),
    "with a gain": lambda self: self.w * self.g,
    "selected": lambda self: torch.where(self.w > 0, self.w, torch.zeros_like(self.w)),
}


@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED)
def test_a_weight_that_is_computed_from_a_parameter_is_that_parameter(compute):
    graph = graph_of(lambda self, x: F.conv2d(x, compute(self)), MAP, w=weight(5, 3, 7, 7), g=weight(5, 1, 1, 1))
    assert kinds(graph) == ["input", "conv"]
    assert graph.param_names[1] == ["w"]


def test_parts_of_a_bias_are_all_decoded_or_kept_with_the_right_reason():
    graph = graph_of(
        lambda self, x: F.linear(x, self.w, torch.cat([self.q, torch.zeros(5), self.v])),
        TOKENS,
        w=weight(15, 5),
        q=weight(5),
        v=weight(5),
    )
    assert kinds(graph) == ["input", "conv", "bias", "bias"]
    assert graph.node_names[1:] == ["w", "q", "v"]
    assert not graph.kept


def test_a_weight_that_is_concatenated_is_several_layers_side_by_side():
    graph = graph_of(
        lambda self, x: F.linear(x, torch.cat([self.q, self.k]), self.b),
        TOKENS,
        q=weight(7, 5),
        k=weight(3, 5),
        b=weight(10),
    )
    assert graph.node_names == ["input", "q", "k", "b"]
    assert graph.edge_index.t().tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    assert not graph.kept


def test_a_weight_that_activations_give_is_folded():
    graph = graph_of(
        lambda self, x: F.conv2d(x, self.a(x.mean((2, 3)))[0].view(5, 3, 1, 1)), MAP[:1], a=nn.Linear(3, 15, bias=False)
    )
    assert kinds(graph) == ["input", "glob_avg", "conv"]


STORED = {
    "transposed": (lambda self, x: F.conv2d(x, self.w.transpose(0, 1)), (3, 11, 2, 2), ("in_out", 0), [11, 3, 2, 2]),
    "a matrix": (lambda self, x: F.conv2d(x, self.w.t()[:, :, None, None]), (3, 11), ("in_out", 0), [11, 3, 1, 1]),
    "one dimension more": (
        lambda self, x: F.conv2d(
            x.flatten(0, 1)[None], (self.w * x.mean((2, 3)).view(2, 1, 3, 1, 1)).flatten(0, 1), groups=2
        ),
        (1, 11, 3, 2, 2), ("out_in", 1), [11, 3, 2, 2],
    ),
    "once for all groups": (
        lambda self, x: F.conv_transpose2d(x, self.w.expand(3, 1, 4, 4), groups=3), (1, 1, 4, 4), ("in_out", 0),
        [1, 1, 4, 4],
    ),
    "turned in place": (lambda self, x: F.linear(x, self.w.clone().t_()), (13, 11), ("in_out", 0), [11, 13, 1, 1]),
}  # fmt: skip


@pytest.mark.parametrize(("forward", "shape", "stored", "node"), STORED.values(), ids=STORED)
def test_weights_that_are_stored_otherwise(forward, shape, stored, node):
    graph = graph_of(forward, MAP, w=weight(*shape))
    (spec,) = next(specs for specs in graph.params if specs)
    assert (spec.layout, spec.stacked) == stored
    assert node in graph.node_shape.tolist()


@pytest.mark.parametrize(
    ("shape", "axes"), [((3, 11), "oo"), ((1, 33, 1), "ooo"), ((33, 1, 1), ""), ((33,), "")], ids=str
)
def test_biases_that_are_flattened_are_vectors(shape, axes):
    graph = graph_of(lambda self, x: F.linear(x, self.w, self.b.flatten()), TOKENS, w=weight(33, 5), b=weight(*shape))
    assert graph.params[2][0].axes == axes
    assert graph.node_shape[2].tolist() == [33, 1, 1, 1]
