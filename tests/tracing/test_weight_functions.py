"""Weights that a network computes from parameters: which of these are layers, and which only scale others."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import coverage, from_module, verify
from ghn_pyg.tracing.kept_reasons import Kept, enters
from tests.tracing.helpers import network, sources, weight

X = torch.rand(3, 6)
MAP = torch.rand(2, 3, 7, 7)
IDS = torch.tensor([[0, 4, 8], [3, 3, 1]])
UPPER = torch.triu_indices(3, 3, 1)
OTHER = enters("the computation of another weight")


def skew(w):
    return w - w.mT


def packed_skew(w):
    q = torch.zeros(2, 3, 3)
    q[:, UPPER[0], UPPER[1]] = w
    return skew(q)


def rotated_blocks(x, w):
    """A rotation of each block, as the first terms of a series."""
    q = packed_skew(w)
    rotation = torch.eye(3).repeat(2, 1, 1)
    rotation.add_(q, alpha=2.0)
    rotation.add_(torch.bmm(q, q))
    return torch.einsum("brk,rkc->brc", x.view(-1, 2, 3), rotation).flatten(1)


def butterfly(x, w, v, s):
    """A block-diagonal rotation by the Cayley transform, between two permutations."""
    q = skew(w.view(2, 3, 3))
    unit = torch.eye(3).expand(2, 3, 3)
    blocks = torch.block_diag(*torch.linalg.solve(unit + q, unit - q, left=False).view(1, 2, 3, 3).squeeze(0))
    order = torch.eye(6)[[3, 0, 4, 1, 5, 2]]
    return F.linear(x, (order @ blocks.to(x) @ order.t() @ v.t()).t() * s)


def bank(x, logits, vectors):
    """The rows of a weight are mixtures of vectors in a bank."""
    best, at = logits.topk(2, -1)
    return F.linear(x, (best.softmax(-1).unsqueeze(-1) * vectors[at]).sum(-2).flatten(1))


def assembled(x, a, b):
    w = torch.zeros(6, 6)
    w[:2] = a
    w[2:, 1:] = b
    return F.linear(x, w)


def through_a_network(x, w, a, b):
    """The update of a weight is a small network of the weight."""
    return F.linear(x, w) + x @ F.linear(F.linear(w, a).relu(), b).t()


def sparse(values):
    return torch.sparse_coo_tensor(UPPER, values, (6, 6), check_invariants=True)


def low_rank_tensor(t, a, b):
    return torch.einsum("ijkl,jr,ip->prkl", t, a, b)


# What it computes, the shapes of the predicted parameters, and those of the others with the reason.
WEIGHTS = {
    "three factors": (lambda x, a, b, c: F.linear(x, a @ b @ c), {"a": (5, 2), "b": (2, 3), "c": (3, 6)}, {}),
    "a product of products": (
        lambda x, a, b, c, d: F.linear(x, (a @ b) * (c @ d)), {"a": (5, 2), "b": (2, 6)},
        {"c": ((5, 3), Kept.MAGNITUDE), "d": ((3, 6), Kept.MAGNITUDE)},
    ),
    "a scaled weight": (
        lambda x, a, b, w: F.linear(x, w + (a @ b) * w), {"w": (5, 6)},
        {"a": ((5, 2), Kept.MAGNITUDE), "b": ((2, 6), Kept.MAGNITUDE)},
    ),
    "a mask": (lambda x, w, m: F.linear(x, m.sigmoid() * w), {"w": (5, 6)}, {"m": ((5, 6), Kept.MAGNITUDE)}),
    "a mask by a threshold": (lambda x, w, m: F.linear(x, (m > 0) * w), {"w": (5, 6)}, {"m": ((5, 6), Kept.MAGNITUDE)}),
    "a diagonal": (lambda x, a, b, s: F.linear(x, a @ s.diag() @ b), {"a": (5, 3), "b": (3, 6)},
                   {"s": ((3,), Kept.MAGNITUDE)}),
    "a scaled constant": (
        lambda x, w, s, m: F.linear(x, w) + F.linear(x, (s[:, :, None] * torch.ones(2, 3, 6) * m).flatten(0, 1)),
        {"w": (6, 6)}, {"s": ((2, 3), Kept.MAGNITUDE), "m": ((3, 6), Kept.MAGNITUDE)},
    ),
    "kron": (lambda x, a, b: F.linear(x, torch.kron(a, b)), {"a": (5, 2), "b": (7, 3)}, {}),
    "kron by hand": (
        lambda x, a, b: F.linear(x, (a[:, None, :, None] * b[:, None]).reshape(35, 6)), {"a": (5, 2), "b": (7, 3)}, {}
    ),
    "a small network": (through_a_network, {"w": (5, 6), "a": (2, 6), "b": (6, 2)}, {}),
    "through a function": (
        lambda x, w, a, b: F.linear(x, w + (a @ b).tanh()), {"w": (5, 6)}, {"a": ((5, 2), OTHER), "b": ((2, 6), OTHER)}
    ),
    "a rotation": (lambda x, w, r: F.linear(x, w @ torch.matrix_exp(skew(r))), {"w": (5, 6), "r": (6, 6)}, {}),
    "packed rotations": (lambda x, w, r: F.linear(rotated_blocks(x, r), w), {"w": (5, 6)}, {"r": ((2, 3), Kept.FLAT)}),
    "a butterfly": (butterfly, {"w": (1, 2, 3, 3), "v": (5, 6)}, {"s": ((5, 1), Kept.MAGNITUDE)}),
    "a bank": (bank, {"vectors": (7, 2)}, {"logits": ((5, 3, 7), Kept.MAGNITUDE)}),
    "rows and a block": (assembled, {"a": (2, 6), "b": (4, 5)}, {}),
    "norms in a scale": (
        lambda x, w, a, b: F.linear(x, w) + F.linear(F.linear(x, a) / (a.norm(dim=1) * b.norm(dim=0)), b),
        {"w": (5, 6), "a": (2, 6), "b": (5, 2)}, {},
    ),
    "a shared weight in a sum": (
        lambda x, w, a, b, c: F.linear(F.linear(x, w) + F.linear(x, w + a @ b), c),
        {"w": (6, 6), "a": (6, 2), "b": (2, 6), "c": (5, 6)}, {},
    ),
    "values of a sparse matrix": (
        lambda x, w, v: F.linear(torch.sparse.mm(sparse(v), x.t()).t(), w),
        {"w": (5, 6)}, {"v": ((3,), Kept.FLAT)},
    ),
    "coefficients": (
        lambda x, w, c: x @ torch.einsum("nb,bio->nio", c, w)[1], {"w": (3, 6, 5)}, {"c": ((2, 3), Kept.MAGNITUDE)}
    ),
    "looked-up coefficients": (
        lambda x, w, c: torch.bmm(x[:, None], (c @ w.view(2, -1)).view(5, 6, 7)[torch.tensor([4, 0, 1])]),
        {"w": (2, 6, 7)}, {"c": ((5, 2), Kept.MAGNITUDE)},
    ),
}  # fmt: skip
CONVOLUTIONS = {
    "low-rank tensors": (
        lambda x, w, t, a, b, s, c, d: F.conv2d(x, w + low_rank_tensor(t, a, b) * low_rank_tensor(s, c, d)),
        {"w": (5, 3, 3, 3), "t": (2, 2, 3, 3), "a": (2, 3), "b": (2, 5)},
        {"s": ((2, 2, 3, 3), Kept.MAGNITUDE), "c": ((2, 3), Kept.MAGNITUDE), "d": ((2, 5), Kept.MAGNITUDE)},
    ),
    "kron": (
        lambda x, a, b: F.conv2d(x, torch.kron(a[:, :, None, None], b)), {"a": (5, 3), "b": (2, 1, 3, 3)}, {}
    ),
    "coefficients": (
        lambda x, w, c: F.conv2d(x, (c.softmax(-1) @ w.flatten(1)).view(2, 5, 3, 3, 3)[0]), {"w": (7, 5, 3, 3, 3)},
        {"c": ((2, 7), Kept.MAGNITUDE)},
    ),
}  # fmt: skip
TABLES = {
    "further rows": (lambda i, e, n: F.embedding(i, torch.cat([e, n])), {"e": (7, 5), "n": (2, 5)}, {}),
    "copied rows": (
        lambda i, e, n: F.embedding(i, e.index_copy(0, torch.tensor([1, 3]), n)), {"e": (9, 5), "n": (2, 5)}, {}
    ),
    "put rows": (
        lambda i, e, n: F.embedding(i, e.index_put((torch.tensor([1, 3]),), n)), {"e": (9, 5), "n": (2, 5)}, {}
    ),
    "chosen rows": (
        lambda i, e, n: F.embedding(i, torch.where(torch.arange(9)[:, None] < 7, e, n)), {"e": (9, 5), "n": (9, 5)}, {}
    ),
    "a row": (lambda i, e, n: F.embedding(i, with_row(e, n)), {"e": (9, 5)}, {"n": ((5,), Kept.TOKEN)}),
    "a product": (lambda i, a, b: F.embedding(i, a @ b), {"a": (9, 2), "b": (2, 5)}, {}),
    "a low-rank update": (lambda i, e, a, b: F.embedding(i, e + a @ b), {"e": (9, 5), "a": (9, 2), "b": (2, 5)}, {}),
    "scaled": (lambda i, e, s: F.embedding(i, e * s), {"e": (9, 5)}, {"s": ((5,), Kept.MAGNITUDE)}),
}  # fmt: skip


def with_row(table, row):
    table = table.clone()
    table[3] = row
    return table


def graph_of(forward, predicted, kept, x):
    members = {name: weight(*shape) for name, shape in predicted.items()}
    members |= {name: weight(*shape) for name, (shape, _) in kept.items()}
    net = network(lambda self, x: forward(x, **{name: getattr(self, name) for name in members}).relu(), **members)
    graph = from_module(net, x)
    assert verify(net, x, graph), str(verify(net, x, graph))
    return graph


CASES = [
    *((name, X, *case) for name, case in WEIGHTS.items()),
    *((name, MAP, *case) for name, case in CONVOLUTIONS.items()),
    *((name, IDS, *case) for name, case in TABLES.items()),
]


@pytest.mark.parametrize(("x", "forward", "predicted", "kept"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_what_weights_are_made_of(x, forward, predicted, kept):
    graph = graph_of(forward, predicted, kept, x)
    assert {spec.name for node in graph.params for spec in node} == set(predicted)
    assert graph.kept == {name: reason for name, (_, reason) in kept.items()}
    gap = any(reason == OTHER for _, reason in kept.values())
    assert (coverage(graph).layer_share < 1) == gap


def spec_of(graph, name):
    return next(spec for node in graph.params for spec in node if spec.name == name)


def test_the_middle_factor_is_stored_like_the_others():
    graph = graph_of(lambda x, a, b, c: x @ (a @ b @ c), {"a": (6, 2), "b": (2, 3), "c": (3, 5)}, {}, X)
    assert [spec_of(graph, name).layout for name in "abc"] == ["in_out"] * 3


def test_blocks_on_a_diagonal_are_a_stack():
    graph = graph_of(lambda x, w: F.linear(x, torch.block_diag(*w)), {"w": (3, 5, 2)}, {}, X)
    assert spec_of(graph, "w").stacked == 1
    assert graph.node_shape[1].tolist() == [5, 2, 1, 1]


def test_the_first_of_two_masks_is_the_one_that_is_trained():
    net = network(lambda self, x: F.linear(x, self.m * self.w), m=weight(5, 6).requires_grad_(False), w=weight(5, 6))
    graph = from_module(net, X)
    assert graph.kept == {"m": Kept.MAGNITUDE}


# --- weights that activations modulate -------------------------------------------------------------------------------

MODULATED = {
    "a sum of matrices": (lambda x, p, w: x @ (p[:, None, None] * w).sum(0), (3, 6, 5)),
    "a sum of matrices in one": (lambda x, p, w: F.linear(x, (p[:, None, None] * w.view(3, 5, 6)).sum(0)), (15, 6)),
    "a contraction": (lambda x, p, w: x @ torch.einsum("e,eio->io", p, w.reshape(3, 6, 5)), (18, 5)),
    "a product": (lambda x, p, w: torch.bmm(x[None, :, :3], (p[:, None] * w)[None])[0], (3, 5)),
    "inputs": (lambda x, p, w: (x[:, None, :3] @ (w * p)[None].mT).squeeze(1), (5, 3)),
}


@pytest.mark.parametrize(("forward", "shape"), MODULATED.values(), ids=MODULATED)
def test_a_weight_that_activations_modulate_is_predicted(forward, shape):
    net = network(
        lambda self, x: self.o(forward(x, self.r(x).softmax(-1).mean(0), self.w)),
        r=nn.Linear(6, 3), w=weight(*shape), o=nn.Linear(5, 2),
    )  # fmt: skip
    graph = from_module(net, X)
    assert graph.kept == {}
    assert spec_of(graph, "w").role == "weight"
    assert verify(net, X, graph)


def test_a_scale_of_queries_is_no_weight():
    def forward(self, x):
        q = self.q(x).view(3, 7, 2, 3).transpose(1, 2) * self.s
        return self.o((q @ q.mT).softmax(-1) @ q)

    net = network(forward, q=nn.Linear(6, 6), s=weight(2, 1, 3), o=nn.Linear(3, 2))
    graph = from_module(net, torch.rand(3, 7, 6))
    assert graph.kept == {"s": Kept.LAYER_SCALE}


def test_a_parameter_that_is_made_of_an_activation_comes_from_it():
    net = network(lambda self, x: self.b(nn.Parameter(self.a(x)).relu()), a=nn.Linear(6, 5), b=nn.Linear(5, 2))
    assert sources(from_module(net, X))["b.weight"] == ["a.bias"]


def test_the_bias_of_stacked_matrices_is_one_bias():
    def forward(self, x):
        h = x @ self.w
        return self.o((h + self.b[1]).relu().mean(0))

    net = network(forward, w=weight(3, 6, 7), b=weight(2, 3, 1, 7), o=nn.Linear(7, 5))
    graph = from_module(net, X[None])
    assert graph.node_types == ["input", "conv", "bias", "conv", "bias"]
    assert spec_of(graph, "b").axes == "sooo"


def test_the_bias_of_a_recurrence_follows_both_products():
    def forward(self, x):
        h = torch.zeros(3, 5)
        for t in range(2):
            h = torch.tanh(x[:, t] @ self.w + h @ self.u + self.b)
        return self.o(h)

    net = network(forward, w=weight(7, 5), u=weight(5, 5), b=weight(5), o=nn.Linear(5, 2))
    x = torch.rand(3, 2, 7)
    graph = from_module(net, x)
    assert sources(graph)["sum"] == ["w", "u"]
    assert sources(graph)["b"] == ["sum"]
    assert verify(net, x, graph)
