"""Tests of learned positions and of the tokens that come before others."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import GHN, GHNConfig, from_module
from ghn_pyg.tracing.kept import Kept
from tests.tracing.helpers import kinds, network, weight


def traced(forward, shape, **parts):
    """The graph of ``forward`` behind a linear layer of five features."""
    return from_module(
        network(lambda self, x: forward(self, self.a(x)), a=nn.Linear(5, 5, bias=False), **parts), torch.zeros(shape)
    )


def spec_of(graph, name):
    """The node and specification of a parameter."""
    return next((node, spec) for node, specs in enumerate(graph.params) for spec in specs if spec.name == name)


@pytest.mark.parametrize(("places", "tokens", "side"), [(196, 1, 14), (49, 2, 7), (49, 0, 7), (17, 5, 4)])
def test_the_first_rows_belong_to_tokens_that_come_before_others(places, tokens, side):
    def forward(self, x):
        return torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions

    graph = traced(forward, (1, places, 5), token=weight(1, tokens, 5), positions=weight(1, places + tokens, 5))
    node, spec = spec_of(graph, "positions")
    assert (spec.role, spec.extra_rows) == ("position", tokens)
    assert graph.node_shape[node].tolist() == [1, 5, side, side]
    assert kinds(graph) == ["input", "conv", "pos_enc", "sum"]


def test_several_tokens_count_together_and_those_behind_do_not():
    def forward(self, x):
        return torch.cat([self.first, self.second, x, self.third], dim=1) + self.positions

    graph = traced(
        forward,
        (1, 7, 5),
        first=weight(1, 1, 5),
        second=weight(1, 2, 5),
        third=weight(1, 3, 5),
        positions=weight(13, 5),
    )
    assert spec_of(graph, "positions")[1].extra_rows == 3
    assert graph.kept == dict.fromkeys(("first", "second", "third"), Kept.TOKEN)


def test_without_such_tokens_all_rows_are_decoded():
    graph = traced(lambda self, x: x + self.positions, (2, 11, 5), positions=weight(11, 5))
    assert spec_of(graph, "positions")[1].extra_rows == 0


TABLES = {
    "rows and columns": (
        lambda self, x: x + (self.p[:, :, None] + self.q[:, None]).flatten(1, 2), (2, 21, 5),
        {"p": (1, 3, 5), "q": (1, 7, 5)}, {"p": [1, 5, 1, 1], "q": [1, 5, 2, 2]},
    ),
    "of blocks": (lambda self, x: x + self.p, (2, 1, 11, 5), {"p": (1, 1, 11, 5)}, {"p": [1, 5, 3, 3]}),
    "a map with channels last": (lambda self, x: x + self.p, (2, 3, 7, 5), {"p": (1, 3, 7, 5)}, {"p": [1, 5, 4, 4]}),
    "a resized map and windows": (
        lambda self, x: x + (F.interpolate(self.p, size=(6, 6)) + self.q.tile(1, 1, 2, 2)).permute(0, 2, 3, 1),
        (2, 6, 6, 5), {"p": (1, 5, 2, 2), "q": (1, 5, 3, 3)}, {"p": [1, 5, 2, 2], "q": [1, 5, 3, 3]},
    ),
    "of frames and of places": (
        lambda self, x: x + self.p + self.q, (2, 3, 7, 5), {"p": (1, 3, 1, 5), "q": (1, 1, 7, 5)},
        {"p": [1, 5, 1, 1], "q": [1, 5, 2, 2]},
    ),
    "of the inner one of two dimensions": (
        lambda self, x: x + self.p, (2, 3, 7, 5), {"p": (7, 5)}, {"p": [1, 5, 2, 2]}
    ),
    "two tables by products": (
        lambda self, x: x + (F.one_hot(torch.arange(22).view(2, 11) % 7, 7).float() @ self.p).sum(0), (2, 11, 5),
        {"p": (2, 7, 5)}, {"p": [1, 5, 3, 3]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("forward", "shape", "tables", "expected"), TABLES.values(), ids=TABLES)
def test_tables_of_many_forms(forward, shape, tables, expected):
    graph = traced(forward, shape, **{name: weight(*size) for name, size in tables.items()})
    assert not graph.kept
    assert kinds(graph).count("pos_enc") == len(tables)
    assert kinds(graph)[-1] == "sum"
    for name, node_shape in expected.items():
        node, spec = spec_of(graph, name)
        assert spec.shape == tables[name]
        assert graph.node_shape[node].tolist() == node_shape


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_predicted(name):
    forward, shape, tables, _ = TABLES[name]
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=3, num_classes=5, layers=1, heads=2))
    prediction = ghn.predict(traced(forward, shape, **{key: weight(*size) for key, size in tables.items()}))
    for key, size in tables.items():
        assert prediction[key].shape == size
        assert prediction[key].isfinite().all()
        # Channels repeat what is decoded for the first three of them.
        last = prediction[key] if size[-1] == 5 else prediction[key].movedim(1, -1)
        assert torch.equal(last[..., 3:], last[..., :2])
        assert not torch.equal(last[..., 0], last[..., 1])


def test_maps_with_channels_last_go_row_by_row():
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=5, num_classes=5, layers=1, heads=2))
    last, table = (
        ghn.predict(traced(lambda self, x: x + self.p.view(1, *x.shape[1:]), shape, p=weight(*size)))["p"]
        for shape, size in (((2, 3, 3, 5), (1, 3, 3, 5)), ((2, 9, 5), (1, 9, 5)))
    )
    assert torch.allclose(last.flatten(1, 2), table, atol=1e-6)


def test_tables_that_are_added_up_in_place():
    def forward(self, x):
        positions = self.p.repeat_interleave(3, dim=0)
        positions.add_(self.q.repeat(4, 1))
        return x.add_(positions)

    graph = traced(forward, (2, 12, 5), p=weight(4, 5), q=weight(3, 5))
    assert graph.node_names == ["input", "a.weight", "p", "q", "sum"]
    assert not graph.kept


@pytest.mark.parametrize("shape", [(5,), (1, 1, 5), (11, 1), (1, 11, 1)])
def test_what_does_not_tell_positions_apart_is_no_table(shape):
    graph = traced(lambda self, x: x.relu() + self.p, (2, 11, 5), p=weight(*shape))
    assert graph.kept == {"p": Kept.OFFSET}


def test_a_table_that_is_added_to_scores_is_kept():
    def forward(self, x):
        near = (torch.arange(11)[:, None] - torch.arange(11)).clamp(-2, 2) + 2
        return (x @ x.mT + self.p(near)[..., 0]).softmax(-1) @ x

    graph = traced(forward, (2, 11, 5), p=nn.Embedding(5, 1))
    assert graph.kept == {"p.weight": Kept.POSITION_BIAS}
    assert kinds(graph) == ["input", "conv", "msa"]


def test_a_table_that_is_the_mask_of_fused_attention_is_kept():
    def forward(self, x):
        near = (torch.arange(11)[:, None] - torch.arange(11)).clamp(-2, 2) + 2
        return F.scaled_dot_product_attention(x, x, x, self.p(near).permute(2, 0, 1))

    graph = traced(forward, (2, 11, 5), p=nn.Embedding(5, 1))
    assert graph.kept == {"p.weight": Kept.POSITION_BIAS}
    assert kinds(graph) == ["input", "conv", "msa"]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_bias_of_each_head_is_no_table(batch):
    heads = traced(lambda self, x: self.q(x).view(7, batch, 3, 5) + self.r, (7, batch, 5), q=nn.Linear(5, 15),
                   r=weight(3, 5))  # fmt: skip
    assert heads.kept == {"r": Kept.OFFSET}


def test_what_also_enters_a_layer_is_a_token():
    def forward(self, x):
        latents = self.latents.expand(len(x), -1, -1)
        return latents + self.b(latents) * x.mean()

    graph = traced(forward, (2, 7, 5), latents=weight(1, 3, 5), b=nn.Linear(5, 5))
    assert graph.kept == {"latents": Kept.TOKEN}


def test_rows_that_queries_are_multiplied_by_are_kept():
    def forward(self, x):
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return (query @ key.mT * 0.5 + query @ self.rows.t() + query @ self.columns.t()).softmax(-1) @ value

    graph = traced(forward, (2, 7, 5), qkv=nn.Linear(5, 15), rows=weight(7, 5), columns=weight(7, 5))
    assert graph.kept == {"rows": Kept.POSITION_BIAS, "columns": Kept.POSITION_BIAS}


def test_a_layer_whose_result_is_added_to_scores_is_one():
    def forward(self, x, pairs):
        return (self.b(x) @ x.mT + self.pairs(pairs)[..., 0]).softmax(-1) @ x

    graph = from_module(
        network(forward, b=nn.Linear(5, 5), pairs=nn.Linear(3, 1)), (torch.zeros(2, 7, 5), torch.zeros(2, 7, 7, 3))
    )
    assert not graph.kept


@pytest.mark.parametrize("gated", [False, True])
def test_every_table_that_is_added_to_scores_is_kept(gated):
    def forward(self, x):
        places = torch.arange(7)
        first = self.p(places) * self.gate(x).sigmoid() if gated else self.p(places)
        return (self.b(x) @ x.mT + first + self.q(places)).softmax(-1) @ x

    graph = traced(forward, (2, 7, 5), p=nn.Embedding(7, 7), q=nn.Embedding(7, 7), gate=nn.Linear(5, 1),
                   b=nn.Linear(5, 5))  # fmt: skip
    kept = {"p.weight": Kept.POSITION_BIAS, "q.weight": Kept.POSITION_BIAS}
    unused = {} if gated else {"gate.weight": Kept.UNUSED, "gate.bias": Kept.UNUSED}
    assert graph.kept == kept | unused
