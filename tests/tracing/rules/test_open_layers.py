"""Layers without a bias, to whose results one is added later, after what leaves their channels alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import ParamSpec
from ghn_pyg.tracing.kept_reasons import Kept
from tests.tracing.helpers import kinds, sources, weight
from tests.tracing.rules.helpers import graph_of, linear, small_ghn

ROWS, STATE, MATRIX = torch.rand(3, 5), torch.rand(3, 11), torch.ones(3, 3)
INTO = torch.tensor([1, 0, 1])
INDEX = INTO[:, None].expand(3, 7)

# What becomes of the layers x W and x V before b is added, and what b follows.
SUMS = {
    "of two layers": (lambda self, x: x @ self.w + x @ self.v, ["sum"]),
    "in place": (lambda self, x: (x @ self.w).add_(x @ self.v), ["sum"]),
    "with a layer that has one": (lambda self, x: F.linear(x, self.v.t(), self.c) + x @ self.w, ["sum"]),
    "with gates": (lambda self, x: x @ self.w + (x @ self.v).relu() * (x @ self.v).sigmoid(), ["sum"]),
    "of a stack": (lambda self, x: torch.stack([x @ self.w, x @ self.v]).sum(0), ["concat"]),
    "of a list": (lambda self, x: sum([x @ self.w, x @ self.v]), ["sum"]),
    "a difference": (lambda self, x: x @ self.w - x @ self.v, ["sum"]),
    "with a constant": (lambda self, x: x @ self.w + 1 + torch.ones(7), ["w"]),
    "into zeros": (lambda self, x: torch.zeros(3, 7) + x @ self.w + x @ self.v, ["sum"]),
    "with a weight of a constant": (lambda self, x: x @ self.w + torch.ones(3, 5) @ self.v, ["sum"]),
    "with a weight of a constant, first": (lambda self, x: torch.ones(3, 5) @ self.v + x @ self.w, ["sum"]),
}
ONE = {
    "a factor": lambda self, x: 0.5 * (x @ self.w) / 3,
    "a mask": lambda self, x: x @ self.w * torch.ones(3, 1),
    "dropout": lambda self, x: F.dropout(x @ self.w, training=True),
    "a copy": lambda self, x: (x @ self.w).contiguous().clone(),
    "a matrix from the left": lambda self, x: MATRIX @ (x @ self.w),
    "a sparse matrix": lambda self, x: torch.sparse.mm(MATRIX.to_sparse(), x @ self.w),
    "an einsum": lambda self, x: torch.einsum("ij,jc->ic", MATRIX, x @ self.w),
    "index_add": lambda self, x: torch.zeros(3, 7).index_add(0, INTO, x @ self.w),
    "index_add_": lambda self, x: torch.zeros(3, 7).index_add_(0, INTO, x @ self.w),
    "scatter_add": lambda self, x: torch.zeros(3, 7).scatter_add(0, INDEX, x @ self.w),
    "scatter_reduce": lambda self, x: torch.zeros(3, 7).scatter_reduce_(0, INDEX, x @ self.w, "amax"),
    "index_put": lambda self, x: torch.zeros(3, 7).index_put((INTO,), x @ self.w, accumulate=True),
    "a mask that fills": lambda self, x: (x @ self.w).masked_fill(MATRIX[:, :1] > 1, 0.0),
    "another type": lambda self, x: (x @ self.w).double().float().to(torch.float32),
    "shifted rows": lambda self, x: torch.roll(x @ self.w, 1, 0),
    "gathered rows": lambda self, x: (x @ self.w)[INTO],
    "chosen rows": lambda self, x: (x @ self.w).index_select(0, INTO),
    "a sum over rows": lambda self, x: (x @ self.w).sum(0),
    "a sum over heads": lambda self, x: (x @ self.u).view(3, 2, 7).sum(1),
    "a mean over heads": lambda self, x: (x @ self.u).view(3, 2, 7).mean(1),
}  # fmt: skip
OF_ACTIVATIONS = {
    "a weight for each row": lambda self, x: x @ self.w * x.sum(-1, keepdim=True).sigmoid(),
    "a weight for each head": lambda self, x: ((x @ self.u).view(3, 2, 7) * x[:, :2, None].sigmoid()).sum(1),
    "a matrix of activations": lambda self, x: (x @ x.t()).relu() @ (x @ self.w),
}


def with_bias(layer, x=ROWS, bias=(7,), **members):
    """The graph of a network that adds b to a layer's result before an activation function and a last layer."""
    members = {"w": weight(5, 7), "v": weight(5, 7), "u": weight(5, 14), "b": weight(*bias), "c": weight(7)} | members
    return graph_of(lambda self, x: self.last((layer(self, x) + self.b).tanh()), x, last=linear(7, 2), **members)


@pytest.mark.parametrize(("layer", "before"), SUMS.values(), ids=SUMS)
def test_a_parameter_that_is_added_to_a_sum_of_layers_is_their_bias(layer, before):
    graph = with_bias(layer)
    assert sources(graph)["b"] == before
    assert sources(graph)["last.weight"] == ["b"]


@pytest.mark.parametrize("layer", (ONE | OF_ACTIVATIONS).values(), ids=ONE | OF_ACTIVATIONS)
def test_a_parameter_that_is_added_later_is_the_bias_of_the_layer(layer):
    graph = with_bias(layer)
    assert [spec for specs in graph.params for spec in specs if spec.role == "bias"] == [ParamSpec("b", (7,), "bias")]
    assert {"w", "u"} & set(sources(graph)["b"])
    assert sources(graph)["last.weight"] == ["b"]
    assert "glob_avg" not in kinds(graph)


MIXED = {
    "a matrix": lambda self, x: MATRIX @ F.linear(x, self.v.t(), self.c),
    "index_add": lambda self, x: torch.zeros(3, 7).index_add(0, INTO, F.linear(x, self.v.t(), self.c)[INTO]),
    "attention": lambda self, x: (x @ x.t()).softmax(-1) @ (x @ self.v + self.c),
}  # fmt: skip


@pytest.mark.parametrize("layer", MIXED.values(), ids=MIXED)
def test_rows_that_are_mixed_may_get_a_second_bias(layer):
    graph = with_bias(layer)
    assert sources(graph)["c"] == ["v"]
    assert {"c", "msa"} & set(sources(graph)["b"])
    assert sources(graph)["last.weight"] == ["b"]


def test_concatenated_layers_have_one_bias():
    graph = with_bias(lambda self, x: torch.cat([x @ self.w[:, :4], x @ self.r], -1), r=weight(5, 3), w=weight(5, 4))
    assert sources(graph)["b"] == ["concat"]


@pytest.mark.parametrize(("shape", "x"), [((1, 7), ROWS), ((1, 7, 1, 1), torch.rand(2, 5, 3, 11))], ids=["rows", "map"])
def test_a_bias_may_have_dimensions_of_size_1(shape, x):
    layer = linear(5, 7) if x.dim() == 2 else nn.Conv2d(5, 7, 1, bias=False)
    graph = graph_of(lambda self, x: self.a(x) + self.b, x, a=layer, b=weight(*shape))
    assert graph.params[2] == [ParamSpec("b", shape, "bias", axes="o" * len(shape))]
    assert graph.node_shape[2].tolist() == [7, 1, 1, 1]
    prediction = small_ghn().predict(graph)["b"]
    assert prediction.shape == shape
    assert prediction.unique().numel() > 1


def test_a_recurrence_has_one_bias_after_the_layers_of_input_and_state():
    def forward(self, x):
        state = torch.zeros(2, 11)
        for step in range(3):
            state = torch.tanh(x[:, step] @ self.w + state @ self.u + self.b)
        return self.last(state)

    members = {"w": weight(5, 11), "u": weight(11, 11), "b": weight(11), "last": linear(11, 2)}
    graph = graph_of(forward, torch.rand(2, 3, 5), **members)
    assert not graph.kept
    assert sources(graph)["b"] == ["sum"]
    assert sources(graph)["sum"] == ["w", "u"]
    assert kinds(graph) == ["input", *["conv", "conv", "sum", "bias"] * 3, "conv"]


def test_a_recurrence_may_have_a_bias_for_the_input_and_one_for_the_state():
    def forward(self, x, state):
        return self.last(torch.tanh(x @ self.w + self.b + state @ self.u + self.c))

    members = {"w": weight(5, 11), "b": weight(11), "u": weight(11, 11), "c": weight(11), "last": linear(11, 2)}
    graph = graph_of(forward, (ROWS, STATE), **members)
    assert not graph.kept
    assert sources(graph)["b"] == ["w"]
    assert sources(graph)["u"] == ["input"]
    assert sources(graph)["sum"] == ["b", "u"]
    assert sources(graph)["c"] == ["sum"]


def test_a_weight_of_a_state_of_zeros_is_a_layer():
    def forward(self, x):
        return self.last(torch.tanh(x @ self.w + torch.zeros(3, 11) @ self.u + self.b))

    graph = graph_of(forward, ROWS, w=weight(5, 11), u=weight(11, 11), b=weight(11), last=linear(11, 2))
    assert not graph.kept
    assert sources(graph)["sum"] == ["w", "u"]
    assert sources(graph)["b"] == ["sum"]


@pytest.mark.parametrize("change", [lambda y: y.sum(-1, keepdim=True), lambda y: y.view(1, 3, 7)[0], lambda y: y + y])
def test_a_weight_of_a_constant_that_is_changed_is_kept(change):
    graph = graph_of(
        lambda self, x: self.last(x @ self.w + change(torch.ones(3, 5) @ self.u)), ROWS, w=weight(5, 7), u=weight(5, 7),
        last=linear(7, 2),
    )  # fmt: skip
    assert graph.kept == {"u": Kept.OFFSET}


def test_a_bias_of_groups_that_are_joined():
    def grouped(self, x):
        return torch.einsum("ngi,gio->ngo", x.view(3, 2, 5), self.w).reshape(3, 14)

    graph = graph_of(lambda self, x: grouped(self, x) + self.b, torch.rand(3, 10), w=weight(2, 5, 7), b=weight(14))
    assert kinds(graph) == ["input", "conv", "bias"]
    assert graph.node_shape.tolist()[1:] == [[7, 5, 1, 1], [14, 1, 1, 1]]


CLOSED = {
    "an activation function": lambda self, x: (x @ self.w + x @ self.v).relu(),
    "a layer with a bias": lambda self, x: F.linear(x, self.v.t(), self.c),
    "chosen rows of a layer with a bias": lambda self, x: F.linear(x, self.v.t(), self.c)[INTO],
    "a residual sum": lambda self, x: (lambda h: h + h.relu() @ self.s)(x @ self.w),
    "an input": lambda self, x: x @ self.w + x.repeat(1, 2)[:, :7],
    "positions": lambda self, x: (F.embedding(torch.arange(3), self.p) + x @ self.w)[None],
    "gates": lambda self, x: x @ self.w * (x @ self.v).sigmoid(),
    "a scale": lambda self, x: x @ self.w * self.c,
    "a matrix from the right": lambda self, x: x @ self.w @ torch.ones(7, 7),
    "a sum over features": lambda self, x: (x @ self.u).view(3, 7, 2).sum(2),
    "a write": lambda self, x: write(x @ self.w, x),
}


def write(result, x):
    result[:, :5] = x
    return result


@pytest.mark.parametrize("layer", CLOSED.values(), ids=CLOSED)
def test_an_offset_of_anything_else_is_kept(layer):
    graph = with_bias(layer, c=weight(7), s=weight(7, 7), p=weight(3, 7))
    assert graph.kept["b"] == Kept.OFFSET


def test_a_token_of_a_sequence_is_no_bias():
    graph = graph_of(
        lambda self, x: self.a(x) + self.b(x) + self.p, torch.rand(2, 3, 5), a=linear(), b=linear(), p=weight(1, 1, 5)
    )
    assert graph.kept == {"p": Kept.OFFSET}
