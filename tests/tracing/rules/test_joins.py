"""Which operations on two values become nodes, and why parameters that enter others are kept."""

import operator

import pytest
import torch
import torch.nn.functional as F

from ghn_pyg.tracing.kept_reasons import Kept, enters
from tests.tracing.helpers import kinds, sources, weight
from tests.tracing.rules.helpers import graph_of, linear


def two_branches(join, out=5):
    """Two layers whose results ``join`` joins before a last one."""

    def forward(self, x):
        return self.c(join(self.a(x), self.b(x)))

    return graph_of(forward, torch.zeros(1, 3, 5), a=linear(), b=linear(), c=linear(out, 2))


JOINS = [
    (lambda a, b: a + b, 5, "sum"),
    (lambda a, b: a - b, 5, "sum"),
    (lambda a, b: torch.add(a, b, alpha=0.5), 5, "sum"),
    (lambda a, b: torch.add(input=a, other=b), 5, "sum"),
    (lambda a, b: a.add_(b), 5, "sum"),
    (lambda a, b: operator.iadd(a, b), 5, "sum"),
    (lambda a, b: sum([a, b]), 5, "sum"),
    (lambda a, b: 1 - a + b, 5, "sum"),
    (lambda a, b: torch.addcmul(a, b, torch.ones(5)), 5, "sum"),
    (lambda a, b: torch.addcmul(a, tensor2=torch.ones(5), tensor1=b), 5, "sum"),
    (lambda a, b: torch.addcdiv(a, b, torch.ones(5)), 5, "sum"),
    (lambda a, b: torch.lerp(a, b, 0.3), 5, "sum"),
    (lambda a, b: a.lerp(weight=torch.full((5,), 0.3), end=b), 5, "sum"),
    (lambda a, b: torch.cat([a, b], 2), 10, "concat"),
    (lambda a, b: torch.cat(tensors=[a, b], dim=2), 10, "concat"),
    (lambda a, b: torch.stack([a, b], 1), 5, "concat"),
    (lambda a, b: torch.hstack([a, b]), 5, "concat"),
    (lambda a, b: torch.cat([a, b, a], 2)[..., :10], 10, "concat"),
]


@pytest.mark.parametrize(("join", "out", "kind"), JOINS)
def test_joins_of_two_nodes(join, out, kind):
    graph = two_branches(join, out)
    assert kinds(graph) == ["input", "conv", "conv", kind, "conv"]
    assert sources(graph)[kind] == ["a.weight", "b.weight"]
    assert sources(graph)["c.weight"] == [kind]


@pytest.mark.parametrize(
    "operation",
    [
        lambda a, b: a * b,
        lambda a, b: a / b,
        lambda a, b: torch.maximum(a, b),
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: a @ b.transpose(1, 2) @ a,
        lambda a, b: torch.bmm(torch.bmm(a, b.mT), a),
        lambda a, b: torch.einsum("btc,btc->btc", a, b),
    ],
)
def test_other_operations_on_two_nodes_are_folded(operation):
    graph = two_branches(operation)
    assert kinds(graph) == ["input", "conv", "conv", "conv"]
    assert sources(graph)["c.weight"] == ["a.weight", "b.weight"]


@pytest.mark.parametrize(
    "join",
    [
        lambda a: a + a,
        lambda a: a + a.relu(),
        lambda a: a + 1,
        lambda a: 1 + a,
        lambda a: a + torch.ones(5),
        lambda a: a + torch.linspace(0, 1, 5),
        lambda a: torch.cat(a.chunk(2, 2), 2),
        lambda a: torch.cat([a], 2),
        lambda a: torch.cat([a, torch.zeros(1, 3, 0)], 2),
        lambda a: torch.stack([a, a.flip(1)]).sum(0),
        lambda a: sum(a.unbind(1)).unsqueeze(1),
        lambda a: a + a.mean(1, keepdim=True),
        lambda a: torch.cat([a, torch.zeros_like(a)], 1),
        lambda a: a - torch.rand_like(a),
    ],
)
def test_joins_of_a_single_node_are_folded(join):
    graph = graph_of(lambda self, x: self.c(join(self.a(x))), torch.zeros(1, 3, 5), a=linear(), c=linear(5, 2))
    assert kinds(graph) == ["input", "conv", "conv"]


attend = F.scaled_dot_product_attention
OFFSETS = {
    "of channels": (lambda self, x: x.relu() + self.p, (5,), Kept.OFFSET),
    "of channels first": (lambda self, x: (x.relu().mT + self.p).mT, (5, 1), Kept.OFFSET),
    "of one token": (lambda self, x: x + self.p, (1, 1, 5), Kept.OFFSET),
    "a scalar": (lambda self, x: x + self.p, (), Kept.OFFSET),
    "a gate": (lambda self, x: x * self.p, (1, 11, 5), Kept.LAYER_SCALE),
    "layer scale": (lambda self, x: x * self.p, (5,), Kept.LAYER_SCALE),
    "a class token": (lambda self, x: torch.cat([self.p.expand(2, -1, -1), x], 1), (1, 1, 5), Kept.TOKEN),
    "an exponent": (lambda self, x: x.clamp(1e-6).pow(self.p), (1,), Kept.SLOPE),
    "an exponent for each pair": (lambda self, x: x.relu().pow(self.p), (11, 5), enters("an operation on two values")),
    "a threshold": (lambda self, x: torch.maximum(x, self.p), (5,), Kept.SLOPE),
    "a codebook": (lambda self, x: torch.cdist(x, self.p).softmax(-1), (5, 5), Kept.TOKEN),
    "a divisor": (lambda self, x: x / self.p, (5,), Kept.LAYER_SCALE),
    "a written token": (lambda self, x: write(x, self.p), (5,), Kept.TOKEN),
    "a mask token": (lambda self, x: torch.where(torch.arange(11)[:, None] < 3, self.p, x), (5,), Kept.TOKEN),
    "a temperature": (lambda self, x: (x @ x.mT * self.p) @ x, (1,), Kept.LOGIT_SCALE),
    "a gate of attention": (lambda self, x: (x.softmax(1) * self.p).sum(1, keepdim=True), (5,), Kept.LOGIT_SCALE),
    "a bias of scores": (lambda self, x: (x @ x.mT + self.p) @ x, (11, 11), Kept.POSITION_BIAS),
    "an addcmul": (lambda self, x: torch.addcmul(x, self.p, x.relu()), (5,), Kept.LAYER_SCALE),
    "a slope": (lambda self, x: F.prelu(x, self.p), (1,), Kept.SLOPE),
    "a gain of a weight": (lambda self, x: F.linear(x, self.a.weight * self.p), (5, 1), Kept.MAGNITUDE),
    "a mask of attention": (lambda self, x: attend(x, x, x, self.p), (11, 11), Kept.POSITION_BIAS),
    "looked-up keys": (lambda self, x: x @ x.mT @ self.p[torch.arange(11) % 3][None], (3, 5), Kept.POSITION_BIAS),
}


def write(x, token):
    x = x.clone()
    x[:, 3] = token
    return x


@pytest.mark.parametrize(("use", "shape", "reason"), OFFSETS.values(), ids=OFFSETS)
def test_parameters_of_other_operations_are_kept_with_the_reason(use, shape, reason):
    layers = {"a": linear(), "b": linear(5, 2)}
    graph = graph_of(lambda self, x: self.b(use(self, self.a(x))), torch.zeros(2, 11, 5), p=weight(*shape), **layers)
    assert {"sum", "concat", "pos_enc", "ln"}.isdisjoint(kinds(graph))
    assert graph.kept == {"p": reason}
