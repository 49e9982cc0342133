"""Layers that a forward pass uses more than once, at first perhaps on a constant."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.tracing.helpers import kinds, sources, weight
from tests.tracing.rules.helpers import graph_of, linear

X = torch.rand(2, 3, 5)


def test_a_layer_that_is_used_first_on_a_constant_has_the_predecessors_of_its_real_use():
    def forward(self, x):
        state = torch.zeros(2, 7)
        for step in range(3):
            state = torch.tanh(self.a(x[:, step]) + self.b(state))
        return self.c(state)

    graph = graph_of(forward, X, a=nn.Linear(5, 7), b=nn.Linear(7, 7), c=linear(7, 2))
    assert sources(graph)["a.weight"] == ["input"]
    assert sources(graph)["b.weight"] == ["a.bias"]
    assert sources(graph)["b.bias"] == ["b.weight"]
    assert kinds(graph).count("sum") == 2
    assert not graph.kept


FIRST = {
    "zeros": lambda self, x: torch.zeros(2, 3, 5),
    "a copy of zeros": lambda self, x: torch.zeros_like(x).clone(),
    "noise": lambda self, x: torch.randn(2, 3, 5),
    "a buffer": lambda self, x: self.start.expand(2, 3, 5),
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
@pytest.mark.parametrize(
    ("block", "names"),
    [
        (nn.Sequential(nn.Linear(5, 5), nn.LayerNorm(5)), ["0.weight", "0.bias", "1.weight"]),
        (nn.Conv1d(3, 3, 1), ["weight", "bias"]),
        (
            nn.TransformerEncoderLayer(5, 1, 7, batch_first=True, norm_first=True),
            ["norm1.weight", "self_attn.out_proj.bias"],
        ),
    ],
    ids=["linear", "conv", "attention"],
)
def test_every_part_of_a_block_follows_its_real_input(first, block, names):
    def twice(self, x):
        return self.last(self.block(first(self, x)).sum(1) * self.block(first(self, x) + 1).sum(1) + once(self, x))

    def once(self, x):
        return self.block(self.a(x)).sum(1)

    members = {"a": linear(), "block": block, "last": linear(5, 2), "start": torch.ones(5)}
    graph, expected = (graph_of(forward, X, **members) for forward in (twice, lambda self, x: self.last(once(self, x))))
    assert graph.node_names == expected.node_names
    assert graph.edge_index.tolist() == expected.edge_index.tolist()
    assert graph.params == expected.params
    assert {f"block.{name}" for name in names} <= set(graph.node_names)


def test_a_layer_that_sees_constants_alone_starts_from_the_input():
    graph = graph_of(lambda self, x: self.b(x + self.a(torch.ones(3, 5))), X, a=nn.Linear(5, 5), b=linear(5, 2))
    assert sources(graph)["a.weight"] == ["input"]
    assert sources(graph)["b.weight"] == ["sum"]


def test_learned_positions_stay_where_they_are_added():
    def forward(self, x):
        return self.a(F.embedding(torch.arange(3), self.p) + x) @ self.p.t()

    graph = graph_of(forward, X, p=weight(3, 5), a=linear())
    assert kinds(graph)[1] == "pos_enc"
    assert graph.params[1][0].role == "position"
    assert sources(graph)["p"] == []
