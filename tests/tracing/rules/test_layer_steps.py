"""Which nodes and parameters a layer makes, and how weights are stored."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module
from ghn_pyg.tracing.kept import Kept, enters
from tests.tracing.helpers import kinds, weight
from tests.tracing.rules.helpers import graph_of

LINE, MAP, VOLUME = torch.rand(2, 3, 23), torch.rand(2, 3, 17, 13), torch.rand(2, 3, 7, 11, 13)
TOKENS = torch.rand(2, 7, 5)
IDS = torch.tensor([[4, 1, 0], [2, 2, 3]])

NODES = {
    "conv": (nn.Conv2d(3, 5, 7), MAP, [("conv", "weight", [5, 3, 7, 7]), ("bias", "bias", [5, 1, 1, 1])]),
    "conv without bias": (nn.Conv2d(3, 5, (7, 2), bias=False), MAP, [("conv", "weight", [5, 3, 7, 2])]),
    "dilated conv": (nn.Conv2d(3, 5, 3, dilation=2, bias=False), MAP, [("conv", "weight", [5, 3, 3, 3])]),
    "grouped conv": (nn.Conv2d(3, 6, 5, groups=3, bias=False), MAP, [("sep_conv", "weight", [6, 1, 5, 5])]),
    "dilated grouped conv": (
        nn.Conv2d(3, 6, 5, groups=3, dilation=2, bias=False),
        MAP,
        [("dil_conv", "weight", [6, 1, 5, 5])],
    ),
    "grouped conv, dilated in one direction": (
        nn.Conv2d(3, 6, 5, groups=3, dilation=(1, 2), bias=False),
        MAP,
        [("sep_conv", "weight", [6, 1, 5, 5])],
    ),
    "conv1d": (nn.Conv1d(3, 5, 7), LINE, [("conv", "weight", [5, 3, 7, 1]), ("bias", "bias", [5, 1, 1, 1])]),
    "conv3d": (nn.Conv3d(3, 5, (2, 3, 7), bias=False), VOLUME, [("conv", "weight", [5, 3, 3, 7])]),
    "transposed conv": (nn.ConvTranspose2d(3, 5, 7, bias=False), MAP, [("conv", "weight", [5, 3, 7, 7])]),
    "grouped transposed conv": (
        nn.ConvTranspose2d(3, 6, 5, groups=3),
        MAP,
        [("sep_conv", "weight", [6, 1, 5, 5]), ("bias", "bias", [6, 1, 1, 1])],
    ),
    "grouped transposed conv, dilated": (
        nn.ConvTranspose2d(3, 6, 5, groups=3, dilation=2, bias=False),
        MAP,
        [("dil_conv", "weight", [6, 1, 5, 5])],
    ),
    "linear": (nn.Linear(5, 11), TOKENS, [("conv", "weight", [11, 5, 1, 1]), ("bias", "bias", [11, 1, 1, 1])]),
    "embedding bag": (nn.EmbeddingBag(11, 7), IDS, [("pos_enc", "weight", [1, 7, 3, 3])]),
    "embedding": (nn.Embedding(11, 7), IDS, [("pos_enc", "weight", [1, 7, 3, 3])]),
    "attention": (
        nn.MultiheadAttention(6, 2),
        (torch.rand(7, 2, 6),) * 3,
        [
            ("conv", "in_proj_weight", [18, 6, 1, 1]),
            ("bias", "in_proj_bias", [18, 1, 1, 1]),
            ("msa", "msa", [0, 0, 0, 0]),
            ("conv", "out_proj.weight", [6, 6, 1, 1]),
            ("bias", "out_proj.bias", [6, 1, 1, 1]),
        ],
    ),
}


@pytest.mark.parametrize(("layer", "inputs", "nodes"), NODES.values(), ids=NODES)
def test_a_layer_is_the_chain_of_its_nodes(layer, inputs, nodes):
    graph = from_module(layer, inputs)
    found = zip(kinds(graph), graph.node_names, graph.node_shape.tolist(), strict=True)
    assert list(found) == [("input", "input", [0, 0, 0, 0]), *nodes]
    assert graph.edge_index.tolist() == [list(range(len(nodes))), list(range(1, len(nodes) + 1))]
    assert graph.kept == {}
    predicted = [name for names in graph.param_names for name in names]
    assert sorted(predicted) == sorted(name for name, _ in layer.named_parameters())


@pytest.mark.parametrize(
    ("layer", "x", "layout", "groups", "shape"),
    [
        (nn.Conv2d(3, 6, 5, groups=3), MAP, "out_in", 1, (6, 1, 5, 5)),
        (nn.ConvTranspose1d(3, 5, 7), LINE, "in_out", 1, (3, 5, 7)),
        (nn.ConvTranspose2d(3, 6, 5, groups=3), MAP, "in_out", 3, (3, 2, 5, 5)),
        (nn.Linear(5, 11), TOKENS, "out_in", 1, (11, 5)),
    ],
)
def test_how_a_weight_is_stored(layer, x, layout, groups, shape):
    (spec,) = from_module(layer, x).params[1]
    assert (spec.role, spec.layout, spec.groups, spec.shape) == ("weight", layout, groups, shape)


@pytest.mark.parametrize("layer", [nn.Embedding(11, 7), nn.EmbeddingBag(11, 7)])
def test_no_row_of_an_embedding_belongs_to_an_extra_token(layer):
    graph = from_module(layer, IDS)
    (spec,) = graph.params[1]
    assert (spec.role, spec.shape, spec.extra_rows) == ("position", (11, 7), 0)


def test_a_shared_layer_is_decoded_once_and_has_a_node_for_each_use():
    graph = graph_of(lambda self, x: self.b(self.a(self.a(x))), TOKENS, a=nn.Linear(5, 5), b=nn.Linear(5, 2))
    assert kinds(graph) == ["input", "conv", "bias", "conv", "bias", "conv", "bias"]
    assert graph.param_names == [[], ["a.weight"], ["a.bias"], [], [], ["b.weight"], ["b.bias"]]
    assert graph.node_names[3:5] == ["a:conv", "a:bias"]
    assert graph.node_shape[3].tolist() == [5, 5, 1, 1]


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


UNNAMED = {
    "a learned mask of fused attention": (
        lambda self, x: F.scaled_dot_product_attention(x, x, self.a(x), self.p), weight(7, 7), Kept.POSITION_BIAS
    ),
    "biases of keys and values": (
        lambda self, x: self.p(self.a(x), x, x)[0],
        nn.MultiheadAttention(5, 1, add_bias_kv=True, batch_first=True),
        Kept.TOKEN,
    ),
    "scores of places": (
        lambda self, x: torch.einsum("btc,tc->bt", self.a(x), self.p), weight(7, 5), enters("a product")
    ),
    "a gain of a weight": (
        lambda self, x: F.linear(x, self.a.weight * self.p, self.a.bias), weight(5, 1), Kept.MAGNITUDE
    ),
    "a slope": (lambda self, x: self.p(self.a(x)), nn.PReLU(), Kept.SLOPE),
    "a layer scale": (lambda self, x: self.a(x) * self.p, weight(5), Kept.LAYER_SCALE),
    "an addcmul": (lambda self, x: torch.addcmul(x, self.p, self.a(x)), weight(5), Kept.LAYER_SCALE),
}  # fmt: skip


@pytest.mark.parametrize(("forward", "p", "reason"), UNNAMED.values(), ids=UNNAMED)
def test_a_parameter_without_a_node_is_kept_with_the_right_reason(forward, p, reason):
    graph = graph_of(forward, TOKENS, a=nn.Linear(5, 5), p=p)
    assert set(graph.kept.values()) == {reason}


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
