"""Learned position embeddings, and the tokens that come before others."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg.tracing.kept_reasons import Kept
from tests.tracing.helpers import kinds, sources, weight
from tests.tracing.rules.helpers import graph_of, linear, small_ghn


def traced(forward, shape, **parts):
    """The graph of ``forward`` behind a linear layer of five features."""
    return graph_of(
        lambda self, x: forward(self, self.a(x)), torch.zeros(shape), a=nn.Linear(5, 5, bias=False), **parts
    )


def spec_of(graph, name):
    """The node and specification of a parameter."""
    return next((node, spec) for node, specs in enumerate(graph.params) for spec in specs if spec.name == name)


POSITIONS = {
    "tokens": (lambda self, x: x + self.p, (1, 11, 5)),
    "first operand": (lambda self, x: self.p + x, (1, 11, 5)),
    "torch.add": (lambda self, x: torch.add(x, self.p), (1, 11, 5)),
    "in place": (lambda self, x: x.add_(self.p), (1, 11, 5)),
    "without batch": (lambda self, x: x + self.p, (11, 5)),
    "expanded": (lambda self, x: x + self.p.expand(2, -1, -1), (1, 11, 5)),
    "expanded as the tokens": (lambda self, x: x + self.p.expand_as(x), (1, 11, 5)),
    "longer": (lambda self, x: x + self.p[:, : x.size(1)], (1, 17, 5)),
    "interpolated": (lambda self, x: x + F.interpolate(self.p.mT, size=11, mode="linear").mT, (1, 7, 5)),
}


@pytest.mark.parametrize(("add", "shape"), POSITIONS.values(), ids=POSITIONS)
def test_learned_positions_are_a_root_that_joins_the_tokens(add, shape):
    graph = traced(lambda self, x: self.b(add(self, x)), (2, 11, 5), b=linear(5, 2), p=weight(*shape))
    assert kinds(graph) == ["input", "conv", "pos_enc", "sum", "conv"]
    assert sources(graph)["p"] == []
    assert sources(graph)["sum"] == ["a.weight", "p"]
    assert graph.params[2][0].role == "position"


def test_learned_positions_of_a_map():
    layers = {"a": nn.Conv2d(3, 5, 1, bias=False), "b": nn.Conv2d(5, 2, 1)}
    graph = graph_of(
        lambda self, x: self.b(self.a(x) + self.p), torch.zeros(2, 3, 11, 13), p=weight(1, 5, 11, 13), **layers
    )
    assert kinds(graph) == ["input", "conv", "pos_enc", "sum", "conv", "bias"]
    assert graph.node_shape[2].tolist() == [1, 5, 11, 13]


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

    tokens = {"first": weight(1, 1, 5), "second": weight(1, 2, 5), "third": weight(1, 3, 5)}
    graph = traced(forward, (1, 7, 5), positions=weight(13, 5), **tokens)
    assert spec_of(graph, "positions")[1].extra_rows == 3
    assert graph.kept == dict.fromkeys(tokens, Kept.TOKEN)


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
    ghn = small_ghn()
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
    ghn = small_ghn(max_channels=5)
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


@pytest.mark.parametrize("batch", [1, 2])
def test_a_bias_of_each_head_is_no_table(batch):
    heads = traced(
        lambda self, x: self.q(x).view(7, batch, 3, 5) + self.r, (7, batch, 5), q=nn.Linear(5, 15), r=weight(3, 5)
    )
    assert heads.kept == {"r": Kept.OFFSET}


def test_what_also_enters_a_layer_is_a_token():
    def forward(self, x):
        latents = self.latents.expand(len(x), -1, -1)
        return latents + self.b(latents) * x.mean()

    graph = traced(forward, (2, 7, 5), latents=weight(1, 3, 5), b=nn.Linear(5, 5))
    assert graph.kept == {"latents": Kept.TOKEN}


NEAR = (torch.arange(11)[:, None] - torch.arange(11)).clamp(-2, 2) + 2
ROWS = torch.arange(11)
SCORES = {
    "a table": (lambda self, x: (x @ x.mT + self.p(NEAR)[..., 0]).softmax(-1) @ x, {"p": nn.Embedding(5, 1)}),
    "a mask of fused attention": (
        lambda self, x: F.scaled_dot_product_attention(x, x, x, self.p(NEAR).permute(2, 0, 1)),
        {"p": nn.Embedding(5, 1)},
    ),
    "two tables": (
        lambda self, x: (x @ x.mT + self.p(ROWS) + self.q(ROWS)).softmax(-1) @ x,
        {"p": nn.Embedding(11, 11), "q": nn.Embedding(11, 11)},
    ),
    "a gated table": (
        lambda self, x: (x @ x.mT + self.p(ROWS) * x.mean(-1, keepdim=True).sigmoid() + self.q(ROWS)).softmax(-1) @ x,
        {"p": nn.Embedding(11, 11), "q": nn.Embedding(11, 11)},
    ),
    "rows times queries": (
        lambda self, x: (x @ x.mT * 0.5 + x @ self.p.weight.t() + x @ self.q.weight.t()).softmax(-1) @ x,
        {"p": nn.Embedding(11, 5), "q": nn.Embedding(11, 5)},
    ),
}


@pytest.mark.parametrize(("attend", "tables"), SCORES.values(), ids=SCORES)
def test_tables_that_are_added_to_scores_are_kept(attend, tables):
    graph = traced(attend, (2, 11, 5), **tables)
    assert graph.kept == {f"{name}.weight": Kept.POSITION_BIAS for name in tables}
    assert kinds(graph) == ["input", "conv", "msa"]


def test_a_layer_whose_result_is_added_to_scores_is_one():
    def forward(self, x, pairs):
        return (self.b(x) @ x.mT + self.pairs(pairs)[..., 0]).softmax(-1) @ x

    graph = graph_of(forward, (torch.zeros(2, 7, 5), torch.zeros(2, 7, 7, 3)), b=linear(), pairs=nn.Linear(3, 1))
    assert not graph.kept
