"""``verify`` on weights and biases that a forward pass uses in several ways, or in parts."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module, verify
from tests.tracing.helpers import network, weight

X = torch.rand(2, 5, 6)


def pooled(self, x):
    """Attention whose queries are parameters."""
    return self.out(self.attention(self.norm(self.queries).expand(2, -1, -1), x, x)[0])


def joined_biases(self, x):
    """Attention to the mean by a function, with the biases of three layers."""
    mean, parts = x.mean(0, keepdim=True), (self.q, self.k, self.v)
    return F.multi_head_attention_forward(
        mean, x, x, 6, 2, None, torch.cat([part.bias for part in parts]), None, None, False, 0.0,
        self.out.weight, self.out.bias, use_separate_proj_weight=True,
        q_proj_weight=self.q.weight, k_proj_weight=self.k.weight, v_proj_weight=self.v.weight,
    )[0]  # fmt: skip


def scaled_by_norms(self, x):
    scale = self.gate / (self.a.norm(dim=1) * self.b.norm(dim=0))
    return self.out(F.linear(x, self.w) + F.linear(F.linear(x, self.a) * scale, self.b))


def magnitudes(self, x):
    update = self.b.weight @ self.a.weight
    scale = self.gate / (self.w + update.detach()).norm(dim=1)
    return self.out((scale - 1) * F.linear(x, self.w) + scale * self.b(self.a(x)))


def codebook(self, x):
    x = self.inner(x)
    distances = x.square().sum(-1, keepdim=True) + self.codes.square().sum(-1) - 2 * x @ self.codes.t()
    chosen = F.embedding(distances.argmin(-1), self.codes)
    return self.out(x + (chosen - x).detach())


def linear(*sizes):
    return nn.Linear(*(sizes or (6, 6)))


NETWORKS = {
    "queries that are parameters": lambda: network(
        pooled, norm=nn.LayerNorm(4), queries=weight(3, 4), out=linear(4, 7),
        attention=nn.MultiheadAttention(4, 2, kdim=6, vdim=6, batch_first=True),
    ),
    "biases that are joined": lambda: network(joined_biases, q=linear(), k=linear(), v=linear(), out=linear()),
    "norms that scale": lambda: network(
        scaled_by_norms, w=weight(6, 6), a=weight(2, 6), b=weight(6, 2), gate=weight(1), out=linear(6, 7)
    ),
    "magnitudes": lambda: network(
        magnitudes, w=weight(6, 6), a=nn.Linear(6, 2, bias=False), b=nn.Linear(2, 6, bias=False), gate=weight(6),
        out=linear(6, 7),
    ),
    "codes that are added": lambda: network(codebook, inner=linear(), codes=weight(11, 6), out=linear(6, 7)),
}  # fmt: skip


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_graphs_agree_with_the_run(make):
    model = make()
    result = verify(model, X)
    assert result, str(result)


def test_token_ids_that_were_computed_from_others_are_looked_up():
    def forward(self, ids):
        shifted = torch.where(ids == 3, 0, ids)[:, :-1]
        return self.out(self.table(shifted) + self.inner(self.table(ids)).mean(1, keepdim=True))

    model = network(forward, table=nn.Embedding(11, 6), inner=linear(), out=linear(6, 7))
    assert verify(model, torch.tensor([[1, 3, 5, 7]]))


@pytest.mark.parametrize("name", ["queries that are parameters", "biases that are joined", "norms that scale"])
def test_a_last_layer_that_follows_nothing_is_seen(name):
    model = NETWORKS[name]()
    graph = from_module(model, X)
    damaged = copy.copy(graph)
    last = graph.node_names.index("out.weight")
    damaged.edge_index = graph.edge_index[:, graph.edge_index[1] != last]
    assert not verify(model, X, damaged)


def test_biases_that_are_joined_stand_behind_their_own_weights():
    model = NETWORKS["biases that are joined"]()
    graph = from_module(model, X)
    names = graph.node_names
    damaged = copy.copy(graph)
    swapped = {names.index("q.weight"): names.index("k.weight"), names.index("k.weight"): names.index("q.weight")}
    damaged.edge_index = graph.edge_index.clone()
    damaged.edge_index[0] = torch.tensor([swapped.get(node, node) for node in graph.edge_index[0].tolist()])
    assert not verify(model, X, damaged)


def test_a_weight_that_is_only_added_is_no_weight():
    model = network(lambda self, x: self.out(self.inner(x) + self.codes.square().sum(0)), inner=linear(),
                    codes=weight(11, 6), out=linear(6, 7))  # fmt: skip
    graph = from_module(model, X)
    assert "codes" in graph.kept
    assert verify(model, X, graph)
