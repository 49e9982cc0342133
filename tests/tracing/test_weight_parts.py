"""Weights that are views of parameters, or made of several."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import ParamSpec, from_module
from ghn_pyg.tracing.kept_reasons import Kept, enters
from tests.tracing.helpers import kinds, network, sources, weight

X = torch.rand(2, 5)
MAP = torch.rand(2, 3, 11, 13)


def out_in(name, *shape, **how):
    return ParamSpec(name, shape, "weight", **how)


def in_out(name, *shape, **how):
    return ParamSpec(name, shape, "weight", "in_out", **how)


def specs(graph):
    return [spec for node in graph.params for spec in node]


# --- views -----------------------------------------------------------------------------------------------------------

# What (2, 5) is multiplied with, and how that is stored.
VIEWS = {
    "t": (lambda w: w.t(), out_in("w", 7, 5)),
    "T": (lambda w: w.T, out_in("w", 5, 5)),
    "mT": (lambda w: w[1].mT, out_in("w", 3, 5, 5, stacked=1)),
    "transposed twice": (lambda w: w.t().transpose(0, 1), in_out("w", 5, 5)),
    "permute": (lambda w: w.permute(2, 0, 1)[:, 0], out_in("w", 3, 7, 5, stacked=1)),
    "a slice": (lambda w: w[:, 2:9], in_out("w", 5, 11)),
    "a slice of a square": (lambda w: w[:5, 2:7].t(), out_in("w", 11, 11)),
    "every second": (lambda w: w[:, ::2], in_out("w", 5, 11)),
    "a chunk": (lambda w: w.chunk(3)[1].t(), out_in("w", 15, 5)),
    "a part": (lambda w: w.split([2, 5, 4], 1)[1], in_out("w", 5, 11)),
    "narrow": (lambda w: w.narrow(0, 3, 5), in_out("w", 11, 7)),
    "unbind": (lambda w: w.unbind(2)[1], ParamSpec("w", (5, 7, 3), "weight", axes="ios")),
    "joined": (lambda w: w.flatten(1), ParamSpec("w", (5, 2, 3), "weight", axes="ioo")),
    "joined, out first": (lambda w: w.view(6, 5).t(), ParamSpec("w", (2, 3, 5), "weight", axes="ooi")),
    "split and joined": (lambda w: w.view(5, 2, 3).flatten(1), in_out("w", 5, 6)),
    "one output": (lambda w: w.t(), out_in("w", 1, 5)),
    "without ones": (lambda w: w.squeeze(1).t(), ParamSpec("w", (7, 1, 5), "weight", axes="ooi")),
    "a flattened convolution": (lambda w: w.flatten(1).t(), out_in("w", 7, 5, 1, 1)),
    "another type": (lambda w: w.t().float().contiguous(), out_in("w", 5, 5)),
    "scaled": (lambda w: -w.t() * 0.5, out_in("w", 5, 5)),
    "masked": (lambda w: (w * torch.ones(5, 5).tril()).t(), out_in("w", 5, 5)),
    "normalised": (lambda w: F.normalize(w.t()), out_in("w", 7, 5)),
    "padded": (lambda w: F.pad(w.t(), (0, 2)), out_in("w", 5, 5)),
    "rows": (lambda w: w.t().index_select(1, torch.tensor([3, 1])), out_in("w", 7, 5)),
}


@pytest.mark.parametrize(("view", "spec"), VIEWS.values(), ids=VIEWS)
def test_a_view_of_a_parameter_is_a_weight(view, spec):
    graph = from_module(network(lambda self, x: x @ view(self.w), w=weight(*spec.shape)), X)
    assert kinds(graph) == ["input", "conv"]
    assert specs(graph) == [spec]
    assert not graph.kept


def test_parts_of_one_weight_are_one_parameter():
    def forward(self, x):
        q, k, v = (x @ part.t() for part in self.w.chunk(3))
        return (q @ k.mT).softmax(-1) @ v

    graph = from_module(network(forward, w=weight(21, 5)), torch.zeros(2, 3, 5))
    assert specs(graph) == [out_in("w", 21, 5)]


def test_what_was_written_into_is_no_weight_any_more():
    def forward(self, x):
        tokens = self.w.expand(2, -1, -1).clone()
        tokens[:, 0] = x[:, 0]
        return self.a(tokens @ x.mT)

    graph = from_module(network(forward, w=weight(1, 7, 5), a=nn.Linear(3, 2)), torch.zeros(2, 3, 5))
    assert graph.kept == {"w": Kept.TOKEN}


# --- several parameters ----------------------------------------------------------------------------------------------

SEVERAL = {
    "cat, one turned": (lambda x, a, b: x @ torch.cat([a.t(), b], 1), [out_in("a", 3, 5), in_out("b", 5, 7)]),
    "cat, turned": (lambda x, a, b: x @ torch.cat([a, b]).t(), [out_in("a", 3, 5), out_in("b", 7, 5)]),
    "cat with a constant": (lambda x, a: x @ torch.cat([a, torch.ones(2, 7)]), [in_out("a", 3, 7)]),
    "stack": (lambda x, a, b: x.expand(2, 2, 5) @ torch.stack([a, b]), [in_out("a", 5, 7), in_out("b", 5, 7)]),
    "stack, last": (lambda x, a, b: x @ torch.stack([a, b], -1)[..., 1], [in_out("a", 5, 7), in_out("b", 5, 7)]),
    "one of a stack": (lambda x, a, b: F.linear(x, torch.stack([a, b])[1]), [out_in("a", 7, 5), out_in("b", 7, 5)]),
    "sum": (lambda x, a, b: x @ (a.t() + b), [out_in("a", 7, 5), in_out("b", 5, 7)]),
    "product": (lambda x, a, b: F.linear(x, a @ b), [out_in("a", 7, 3), out_in("b", 3, 5)]),
    "product, turned": (lambda x, a, b: x @ (a @ b).t(), [out_in("a", 7, 3), out_in("b", 3, 5)]),
    "low rank": (
        lambda x, a, b, c: F.linear(x, a + 2 * (b @ c)), [out_in("a", 7, 5), out_in("b", 7, 3), out_in("c", 3, 5)]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("forward", "expected"), SEVERAL.values(), ids=SEVERAL)
def test_each_parameter_of_a_weight_is_predicted(forward, expected):
    members = {spec.name: weight(*spec.shape) for spec in expected}
    graph = from_module(network(lambda self, x: forward(x, *(getattr(self, name) for name in members)), **members), X)
    assert kinds(graph) == ["input", *["conv"] * len(expected)]
    assert specs(graph) == expected
    assert not graph.kept


def test_convolutions_that_are_added():
    def forward(self, x):
        return F.conv2d(x, self.a + F.pad(self.b, (1, 1, 1, 1)), self.c, padding=1)

    graph = from_module(network(forward, a=weight(7, 3, 3, 3), b=weight(7, 3, 1, 1), c=weight(7)), MAP)
    assert kinds(graph) == ["input", "conv", "conv", "bias"]
    assert specs(graph)[:2] == [out_in("a", 7, 3, 3, 3), out_in("b", 7, 3, 1, 1)]
    assert sources(graph)["c"] == ["a", "b"]


def test_a_convolution_that_is_resized():
    def forward(self, x):
        return F.conv2d(x, self.a + F.interpolate(self.b, size=(3, 3)), padding=1)

    graph = from_module(network(forward, a=weight(7, 3, 3, 3), b=weight(7, 3, 5, 5)), MAP)
    assert specs(graph) == [out_in("a", 7, 3, 3, 3), out_in("b", 7, 3, 5, 5)]


def test_one_convolution_of_several():
    graph = from_module(network(lambda self, x: F.conv2d(x, self.w[1]), w=weight(2, 7, 3, 3, 5)), MAP)
    assert specs(graph) == [out_in("w", 2, 7, 3, 3, 5, stacked=1)]
    assert graph.node_shape[1].tolist() == [7, 3, 3, 5]


def test_a_low_rank_update_of_the_direction_of_a_weight_keeps_its_magnitude():
    def forward(self, x):
        w = self.w + self.b @ self.a
        return F.linear(x, w * (self.m / w.norm(dim=1))[:, None])

    graph = from_module(network(forward, w=weight(7, 5), b=weight(7, 3), a=weight(3, 5), m=weight(7)), X)
    assert specs(graph) == [out_in("w", 7, 5), out_in("b", 7, 3), out_in("a", 3, 5)]
    assert graph.kept == {"m": Kept.MAGNITUDE}


@pytest.mark.parametrize("scale", [F.softplus, torch.exp, torch.sigmoid])
def test_what_enters_a_weight_through_a_function_is_kept(scale):
    """Noise of a learned size, or a learned mask: no weight is what it looks like."""

    def forward(self, x):
        return F.linear(x, self.w + scale(self.s) * torch.ones(7, 5))

    graph = from_module(network(forward, w=weight(7, 5), s=weight(7, 5)), X)
    assert specs(graph) == [out_in("w", 7, 5)]
    assert graph.kept == {"s": enters("the computation of another weight")}


def test_weights_that_are_mixtures_of_others():
    """As in relational graph convolutions, whose relations share a few matrices."""

    def forward(self, x):
        mixed = (self.c @ self.w.view(3, -1)).view(2, 5, 7)
        return x @ mixed[0] + x @ mixed[1]

    graph = from_module(network(forward, w=weight(3, 5, 7), c=weight(2, 3)), X)
    assert specs(graph) == [in_out("w", 3, 5, 7, stacked=1)]
    assert graph.kept == {"c": Kept.MAGNITUDE}


def test_rows_of_a_table_are_no_weight():
    def forward(self, x):
        return self.a(torch.einsum("btc,tkc->btk", x, self.w[self.places]))

    places = torch.tensor([[0, 1, 2], [1, 2, 3]])
    graph = from_module(network(forward, w=weight(7, 5), places=places, a=nn.Linear(3, 2)), torch.zeros(2, 2, 5))
    assert graph.kept == {"w": Kept.POSITION_BIAS}


# --- flat vectors, which weights are cut from ------------------------------------------------------------------------

CUT = {
    "slices": lambda self, x: F.linear(F.linear(x, self.w[:35].view(7, 5), self.w[35:42]), self.w[42:].view(2, 7)),
    "split": lambda self, x: (
        lambda a, b, c: F.linear(F.linear(x, a.view(7, 5)), c.view(2, 7)) + b[:2]
    )(*self.w.split([35, 7, 14])),
    "products": lambda self, x: (x @ self.w[:35].view(5, 7) + self.w[35:42]) @ self.w[42:].reshape(7, 2),
    "bias first": lambda self, x: F.linear(F.linear(x, self.v, self.w[:7]), self.w[7:21].view(2, 7)),
    "a norm first": lambda self, x: F.linear(
        F.layer_norm(x, (5,), self.w[:5], self.w[5:10]) @ self.v.t(), self.w[10:24].view(2, 7)
    ),
    "a convolution": lambda self, x: F.conv1d(x[:, None], self.w[:21].view(7, 1, 3)),
    "a table": lambda self, x: x @ F.embedding(torch.tensor([1, 0]), self.w[:15].view(3, 5)).t(),
}  # fmt: skip


@pytest.mark.parametrize("forward", CUT.values(), ids=CUT)
def test_a_flat_vector_that_weights_are_cut_from_is_kept(forward):
    graph = from_module(network(forward, w=weight(56), v=weight(7, 5), o=nn.Linear(5, 2)), X)
    assert graph.kept["w"] == Kept.FLAT
    assert set(graph.kept) <= {"w", "v", "o.weight", "o.bias"}
    assert "w" not in graph.node_names


def test_a_vector_of_depthwise_weights_is_no_flat_vector():
    graph = from_module(network(lambda self, x: F.conv2d(x, self.w.view(3, 1, 1, 1), groups=3), w=weight(3)), MAP)
    assert specs(graph) == [out_in("w", 3)]
