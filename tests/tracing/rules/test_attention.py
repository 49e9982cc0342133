"""Attention: fused, multi-head, or written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module
from ghn_pyg.tracing.kept_reasons import Kept
from tests.tracing.helpers import kinds, sources, weight
from tests.tracing.rules.helpers import graph_of, linear

X = torch.rand(2, 3, 5)
ATTENTION = {
    "matmul": lambda q, k, v: F.softmax(q @ k.transpose(-2, -1) / 2, dim=-1) @ v,
    "bmm": lambda q, k, v: torch.bmm(torch.softmax(torch.bmm(q, k.mT), -1), v),
    "baddbmm": lambda q, k, v: torch.baddbmm(torch.zeros(1, 3, 3), q, k.mT).softmax(-1).matmul(v),
    "einsum": lambda q, k, v: torch.einsum("bij,bjc->bic", torch.einsum("bic,bjc->bij", q, k).softmax(2), v),
    "dropout": lambda q, k, v: F.dropout((q @ k.mT).softmax(-1), 0.1) @ v,
    "masked": lambda q, k, v: (q @ k.mT).masked_fill(torch.ones(3, 3).triu(1).bool(), -1e9).softmax(-1) @ v,
    "heads": lambda q, k, v: (
        (
            (q.view(1, 3, 5, 1).transpose(1, 2) @ k.view(1, 3, 5, 1).permute(0, 2, 3, 1)).softmax(-1)
            @ v.unflatten(2, (5, 1)).transpose(1, 2)
        )
        .transpose(1, 2)
        .flatten(2)
    ),
    "fused": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    "fused by keyword": lambda q, k, v: F.scaled_dot_product_attention(query=q, key=k, value=v),
    "fused with a mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.ones(3, 3).tril().bool()),
    "softmax by keyword": lambda q, k, v: torch.softmax(input=q @ k.mT, dim=-1) @ v,
}


@pytest.mark.parametrize("attend", ATTENTION.values(), ids=ATTENTION)
def test_attention(attend):
    graph = graph_of(
        lambda self, x: self.o(attend(self.q(x), self.k(x), self.v(x))),
        torch.zeros(1, 3, 5),
        q=linear(),
        k=linear(),
        v=linear(),
        o=linear(5, 2),
    )
    assert kinds(graph) == ["input", "conv", "conv", "conv", "msa", "conv"]
    assert sources(graph)["msa"] == ["q.weight", "k.weight", "v.weight"]
    assert sources(graph)["o.weight"] == ["msa"]


@pytest.mark.parametrize(
    "use", [lambda x: x.softmax(-1), lambda x: x * x.softmax(-1), lambda x: F.softmax(x, dim=1).sum(1, keepdim=True)]
)
def test_a_softmax_that_weighs_no_values_is_no_attention(use):
    graph = graph_of(lambda self, x: self.b(use(self.a(x))), torch.zeros(1, 3, 5), a=linear(), b=linear(5, 2))
    assert kinds(graph) == ["input", "conv", "conv"]


@pytest.mark.parametrize("bias", [True, False])
def test_attention_whose_heads_a_layer_mixes(bias):
    def forward(self, x):
        q, k, v = self.qkv(x).view(1, 3, 3, 2, 5).permute(2, 0, 3, 1, 4)
        scores = self.before((q @ k.mT).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        scores = self.after(scores.softmax(-1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.out((scores @ v).transpose(1, 2).flatten(2))

    graph = graph_of(
        forward,
        torch.rand(1, 3, 10),
        qkv=nn.Linear(10, 30, bias=False),
        before=nn.Linear(2, 2, bias=bias),
        after=nn.Linear(2, 2, bias=bias),
        out=nn.Linear(10, 10, bias=False),
    )
    mixed = ["conv", "bias"] if bias else ["conv"]
    assert kinds(graph) == ["input", "conv", *mixed, "msa", *mixed, "conv"]
    last = "after.bias" if bias else "after.weight"
    assert sources(graph)["msa"] == [last.replace("after", "before")]
    assert sources(graph)["after.weight"] == ["msa"]
    assert sources(graph)["out.weight"] == ["qkv.weight", last]


def test_a_layer_on_probabilities_that_weighs_no_values_is_no_attention():
    def forward(self, x):
        return self.c(self.b(self.a(x).softmax(-1)).relu())

    graph = graph_of(forward, X, **{name: nn.Linear(5, 5, bias=False) for name in "abc"})
    assert kinds(graph) == ["input", "conv", "conv", "conv"]


SELF, CROSS = (torch.rand(7, 2, 6),) * 3, (torch.rand(7, 2, 6), torch.rand(11, 2, 6), torch.rand(11, 2, 6))


@pytest.mark.parametrize("options", [{}, {"need_weights": False}, {"average_attn_weights": False}], ids=str)
@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        ({}, SELF),
        ({}, CROSS),
        ({"bias": False}, CROSS),
        ({"add_bias_kv": True}, CROSS),
        ({"add_zero_attn": True}, CROSS),
        ({"kdim": 5, "vdim": 3}, (CROSS[0], CROSS[1][..., :5], CROSS[1][..., :3])),
        ({}, tuple(x[:, 0] for x in CROSS)),
        ({"batch_first": True}, tuple(x.transpose(0, 1) for x in CROSS)),
    ],
    ids=["self", "cross", "no bias", "bias_kv", "zero_attn", "kdim", "unbatched", "batch_first"],
)
def test_multi_head_attention_has_the_shape_that_pytorch_computes(layer, inputs, options):
    attention = nn.MultiheadAttention(6, 2, **layer)
    expected = [None if out is None else out.shape for out in attention(*inputs, **options)]
    seen = []

    def forward(self, *given):
        outputs = self.attention(*given, **options)
        seen.append([None if out is None else out.shape for out in outputs])
        return outputs

    graph_of(forward, inputs, attention=attention)
    assert seen[0] == expected


def test_multi_head_attention_is_a_chain():
    graph = from_module(nn.MultiheadAttention(6, 2), SELF)
    names = ["in_proj_weight", "in_proj_bias", "msa", "out_proj.weight", "out_proj.bias"]
    assert graph.node_names == ["input", *names]
    assert kinds(graph) == ["input", "conv", "bias", "msa", "conv", "bias"]
    assert graph.node_shape[:, :2].tolist() == [[0, 0], [18, 6], [18, 1], [0, 0], [6, 6], [6, 1]]
    assert graph.edge_index.tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]


def test_separate_projections_of_attention_meet_in_its_bias():
    layer = nn.MultiheadAttention(6, 2, kdim=5, vdim=3)
    graph = from_module(layer, (CROSS[0], CROSS[1][..., :5], CROSS[1][..., :3]))
    assert kinds(graph) == ["input", "conv", "conv", "conv", "bias", "msa", "conv", "bias"]
    assert sources(graph)["in_proj_bias"] == ["q_proj_weight", "k_proj_weight", "v_proj_weight"]


def test_biases_of_keys_and_values_are_tokens():
    graph = from_module(nn.MultiheadAttention(6, 2, add_bias_kv=True), SELF)
    assert graph.kept == {"bias_k": Kept.TOKEN, "bias_v": Kept.TOKEN}


@pytest.mark.parametrize("separate", [True, False])
def test_attention_may_return_other_features_than_it_takes(separate):
    def forward(self, x):
        weights = {"q_proj_weight": self.q, "k_proj_weight": self.k, "v_proj_weight": self.v} if separate else {}
        packed = None if separate else self.qkv
        out, _ = F.multi_head_attention_forward(
            x[:1], x, x, 6, 2, packed, self.c, None, None, False, 0.0, self.o.weight, self.o.bias,
            use_separate_proj_weight=separate, need_weights=False, **weights,
        )  # fmt: skip
        seen.append(out.shape)
        return self.h(out[0])

    seen = []
    packed = {name: weight(6, 6) for name in "qkv"} if separate else {"qkv": weight(18, 6)}
    members = {**packed, "c": weight(18), "o": nn.Linear(6, 11), "h": nn.Linear(11, 3)}
    graph = graph_of(forward, torch.rand(5, 2, 6), **members)
    assert seen == [(1, 2, 11)]
    assert sources(graph)["h.weight"] == ["o.bias"]
    assert not graph.kept


def test_a_layer_that_is_added_to_a_product_of_activations_is_no_table():
    def forward(self, x):
        weights = self.a(x.mean(1)).view(2, 5, 7)
        return self.c((x @ weights + self.b(x)).relu())

    graph = graph_of(forward, X, a=nn.Linear(5, 35), b=linear(5, 7), c=linear(7, 2))
    assert not graph.kept
    assert set(sources(graph)["sum"]) == {"input", "a.bias", "b.weight"}
