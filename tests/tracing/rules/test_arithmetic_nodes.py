"""Which operations on values become nodes."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module
from ghn_pyg.tracing.kept import Kept, enters
from tests.tracing.helpers import kinds, network, sources, weight


def linear(into=5, out=5):
    return nn.Linear(into, out, bias=False)


def two_branches(join, out=5):
    """Two layers whose results ``join`` joins before a last one."""

    def forward(self, x):
        return self.c(join(self, self.a(x), self.b(x)))

    return from_module(network(forward, a=linear(), b=linear(), c=linear(out, 2)), torch.zeros(1, 3, 5))


@pytest.mark.parametrize(
    ("join", "out", "kind"),
    [
        (lambda self, a, b: a + b, 5, "sum"),
        (lambda self, a, b: a - b, 5, "sum"),
        (lambda self, a, b: torch.add(a, b, alpha=0.5), 5, "sum"),
        (lambda self, a, b: a.add(b), 5, "sum"),
        (lambda self, a, b: a.add_(b), 5, "sum"),
        (lambda self, a, b: operator.iadd(a, b), 5, "sum"),
        (lambda self, a, b: sum([a, b]), 5, "sum"),
        (lambda self, a, b: torch.sub(a, b), 5, "sum"),
        (lambda self, a, b: 1 - a + b, 5, "sum"),
        (lambda self, a, b: torch.addcmul(a, b, torch.ones(5)), 5, "sum"),
        (lambda self, a, b: a.addcmul(torch.ones(5), b, value=0.5), 5, "sum"),
        (lambda self, a, b: torch.addcdiv(a, b, torch.ones(5)), 5, "sum"),
        (lambda self, a, b: torch.lerp(a, b, 0.3), 5, "sum"),
        (lambda self, a, b: a.lerp(b, torch.full((5,), 0.3)), 5, "sum"),
        (lambda self, a, b: torch.add(input=a, other=b), 5, "sum"),
        (lambda self, a, b: torch.cat([a, b], 2), 10, "concat"),
        (lambda self, a, b: torch.cat(tensors=[a, b], dim=2), 10, "concat"),
        (lambda self, a, b: torch.cat([a, b], 1), 5, "concat"),
        (lambda self, a, b: torch.stack([a, b], 1), 5, "concat"),
        (lambda self, a, b: torch.hstack([a, b]), 5, "concat"),
        (lambda self, a, b: torch.cat([a, b, a], 2)[..., :10], 10, "concat"),
    ],
)
def test_joins_of_two_nodes(join, out, kind):
    graph = two_branches(join, out)
    assert kinds(graph) == ["input", "conv", "conv", kind, "conv"]
    assert sources(graph)[kind] == ["a.weight", "b.weight"]
    assert sources(graph)["c.weight"] == [kind]


@pytest.mark.parametrize(
    ("join", "out"),
    [
        (lambda self, a, b: a * b, 5),
        (lambda self, a, b: a / b, 5),
        (lambda self, a, b: torch.maximum(a, b), 5),
        (lambda self, a, b: torch.where(a > 0, a, b), 5),
        (lambda self, a, b: a @ b.transpose(1, 2) @ a, 5),
        (lambda self, a, b: torch.bmm(torch.bmm(a, b.mT), a), 5),
        (lambda self, a, b: a * b.sigmoid(), 5),
        (lambda self, a, b: torch.einsum("btc,btc->btc", a, b), 5),
    ],
)
def test_other_operations_on_two_nodes_are_folded(join, out):
    graph = two_branches(join, out)
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
    graph = from_module(
        network(lambda self, x: self.c(join(self.a(x))), a=linear(), c=linear(5, 2)), torch.zeros(1, 3, 5)
    )
    assert kinds(graph) == ["input", "conv", "conv"]


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
    graph = from_module(
        network(
            lambda self, x: self.o(attend(self.q(x), self.k(x), self.v(x))),
            q=linear(),
            k=linear(),
            v=linear(),
            o=linear(5, 2),
        ),
        torch.zeros(1, 3, 5),
    )
    assert kinds(graph) == ["input", "conv", "conv", "conv", "msa", "conv"]
    assert sources(graph)["msa"] == ["q.weight", "k.weight", "v.weight"]
    assert sources(graph)["o.weight"] == ["msa"]


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x.softmax(-1),
        lambda x: x * x.softmax(-1),
        lambda x: F.softmax(x, dim=1).sum(1, keepdim=True),
    ],
)
def test_a_softmax_that_weighs_no_values_is_no_attention(use):
    graph = from_module(
        network(lambda self, x: self.b(use(self.a(x))), a=linear(), b=linear(5, 2)), torch.zeros(1, 3, 5)
    )
    assert kinds(graph) == ["input", "conv", "conv"]


def single(forward, shape, **members):
    return from_module(network(forward, **members), torch.zeros(shape))


PRODUCTS_WITH_A_WEIGHT = {
    "x @ w": (lambda self, x: x @ self.w, (5, 7), "in_out", (7, 5, 1, 1)),
    "x @ w.t()": (lambda self, x: x @ self.w.t(), (7, 5), "out_in", (7, 5, 1, 1)),
    "x @ w.T": (lambda self, x: x @ self.w.T, (7, 5), "out_in", (7, 5, 1, 1)),
    "x @ w.mT": (lambda self, x: x @ self.w.mT, (7, 5), "out_in", (7, 5, 1, 1)),
    "matmul": (lambda self, x: torch.matmul(x, self.w), (5, 7), "in_out", (7, 5, 1, 1)),
    "matmul by keyword": (lambda self, x: torch.matmul(input=x, other=self.w), (5, 7), "in_out", (7, 5, 1, 1)),
    "mm": (lambda self, x: torch.mm(x[0], self.w), (5, 7), "in_out", (7, 5, 1, 1)),
    "square": (lambda self, x: x @ self.w, (5, 5), "in_out", (5, 5, 1, 1)),
    "square, transposed": (lambda self, x: x @ self.w.t(), (5, 5), "out_in", (5, 5, 1, 1)),
    "addmm": (lambda self, x: torch.addmm(torch.zeros(7), x[0], self.w), (5, 7), "in_out", (7, 5, 1, 1)),
    "scaled": (lambda self, x: x @ (self.w * 0.5), (5, 7), "in_out", (7, 5, 1, 1)),
    "linear": (lambda self, x: F.linear(x, self.w), (7, 5), "out_in", (7, 5, 1, 1)),
    "linear by keyword": (lambda self, x: F.linear(input=x, weight=self.w), (7, 5), "out_in", (7, 5, 1, 1)),
}


@pytest.mark.parametrize(
    ("forward", "shape", "layout", "seen"), PRODUCTS_WITH_A_WEIGHT.values(), ids=PRODUCTS_WITH_A_WEIGHT
)
def test_a_product_with_a_matrix_is_a_linear_layer(forward, shape, layout, seen):
    graph = single(forward, (1, 3, 5), w=weight(*shape))
    assert kinds(graph) == ["input", "conv"]
    (spec,) = graph.params[1]
    assert (spec.name, spec.shape, spec.role, spec.layout) == ("w", shape, "weight", layout)
    assert tuple(graph.node_shape[1].tolist()) == seen


def test_addmm_with_a_bias_is_a_layer_of_two_nodes():
    graph = single(lambda self, x: torch.addmm(self.b, x, self.w), (3, 5), w=weight(5, 7), b=weight(7))
    assert kinds(graph) == ["input", "conv", "bias"]
    assert graph.params[1][0].layout == "in_out"
    assert graph.params[2][0].role == "bias"


POSITIONS = {
    "tokens": (lambda self, x: x + self.p, (1, 11, 5)),
    "first operand": (lambda self, x: self.p + x, (1, 11, 5)),
    "torch.add": (lambda self, x: torch.add(x, self.p), (1, 11, 5)),
    "in place": (lambda self, x: x.add_(self.p), (1, 11, 5)),
    "without batch": (lambda self, x: x + self.p, (11, 5)),
    "expanded": (lambda self, x: x + self.p.expand(2, -1, -1), (1, 11, 5)),
    "longer": (lambda self, x: x + self.p[:, : x.size(1)], (1, 17, 5)),
    "interpolated": (
        lambda self, x: x + F.interpolate(self.p.transpose(1, 2), size=11, mode="linear").transpose(1, 2),
        (1, 7, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("add", "shape"), POSITIONS.values(), ids=POSITIONS)
def test_learned_positions_are_a_root_that_joins_the_tokens(add, shape):
    graph = single(
        lambda self, x: self.b(add(self, self.a(x))), (2, 11, 5), a=linear(), b=linear(5, 2), p=weight(*shape)
    )
    assert kinds(graph) == ["input", "conv", "pos_enc", "sum", "conv"]
    assert sources(graph)["p"] == []
    assert sources(graph)["sum"] == ["a.weight", "p"]
    assert graph.params[2][0].role == "position"


def test_learned_positions_of_a_map():
    graph = single(
        lambda self, x: self.b(self.a(x) + self.p), (2, 3, 11, 13), a=nn.Conv2d(3, 5, 1, bias=False),
        b=nn.Conv2d(5, 2, 1), p=weight(1, 5, 11, 13),
    )  # fmt: skip
    assert kinds(graph) == ["input", "conv", "pos_enc", "sum", "conv", "bias"]
    assert graph.node_shape[2].tolist() == [1, 5, 11, 13]


OFFSETS = {
    "of channels": (lambda self, x: x.relu() + self.p, (5,), Kept.OFFSET),
    "of channels first": (lambda self, x: (x.relu().mT + self.p).mT, (5, 1), Kept.OFFSET),
    "of one token": (lambda self, x: x + self.p, (1, 1, 5), Kept.OFFSET),
    "a scalar": (lambda self, x: x + self.p, (), Kept.OFFSET),
    "a gate": (lambda self, x: x * self.p, (1, 11, 5), Kept.LAYER_SCALE),
    "layer scale": (lambda self, x: x * self.p, (5,), Kept.LAYER_SCALE),
    "a class token": (lambda self, x: torch.cat([self.p.expand(2, -1, -1), x], 1), (1, 1, 5), Kept.TOKEN),
    "an exponent": (lambda self, x: x.clamp(1e-6).pow(self.p), (1,), enters("an operation on two values")),
    "a divisor": (lambda self, x: x / self.p, (5,), Kept.LAYER_SCALE),
    "a written token": (lambda self, x: write(x, self.p), (5,), Kept.TOKEN),
    "a mask token": (lambda self, x: torch.where(torch.arange(11)[:, None] < 3, self.p, x), (5,), Kept.TOKEN),
    "a temperature": (lambda self, x: (x @ x.mT * self.p) @ x, (1,), Kept.LOGIT_SCALE),
    "a gate of attention": (lambda self, x: (x.softmax(1) * self.p).sum(1, keepdim=True), (5,), Kept.LOGIT_SCALE),
    "a bias of scores": (lambda self, x: (x @ x.mT + self.p) @ x, (11, 11), Kept.POSITION_BIAS),
    "looked-up keys": (lambda self, x: x @ x.mT @ self.p[torch.arange(11) % 3][None], (3, 5), Kept.POSITION_BIAS),
}


def write(x, token):
    x = x.clone()
    x[:, 3] = token
    return x


@pytest.mark.parametrize(("use", "shape", "reason"), OFFSETS.values(), ids=OFFSETS)
def test_parameters_of_other_operations_are_kept_with_the_reason(use, shape, reason):
    graph = single(
        lambda self, x: self.b(use(self, self.a(x))), (2, 11, 5), a=linear(), b=linear(5, 2), p=weight(*shape)
    )
    assert kinds(graph) == ["input", "conv", "conv"]
    assert graph.kept == {"p": reason}


# --- writing into views ----------------------------------------------------------------------------------------------

WRITES = {
    "slice": lambda a, b: operator.setitem(a, (slice(None), slice(0, 2)), b[:, :2]),
    "row": lambda a, b: a[:, 0].add_(b[:, 0]),
    "view": lambda a, b: a.view(3, 5).add_(b[0]),
    "flatten": lambda a, b: a.flatten(1).add_(b.flatten(1)),
    "transpose": lambda a, b: a.transpose(1, 2).add_(b.mT),
    "unsqueeze": lambda a, b: a.unsqueeze(0).add_(b),
    "permute": lambda a, b: a.permute(2, 0, 1).add_(b.permute(2, 0, 1)),
    "view of a view": lambda a, b: a.view(3, 5)[1].add_(b[0, 1]),
    "chunk": lambda a, b: a.chunk(2, 2)[0].add_(b.chunk(2, 2)[0]),
    "split": lambda a, b: a.split([2, 3], 2)[1].copy_(b[..., 2:]),
    "narrow": lambda a, b: a.narrow(1, 1, 2).add_(b[:, 1:]),
    "select": lambda a, b: a.select(1, 2).add_(b[:, 2]),
    "out": lambda a, b: torch.add(a, b, out=a),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writing_into_a_view_writes_into_the_tensor(write):
    def forward(self, x):
        a, b = self.a(x), self.b(x)
        write(a, b)
        return self.c(a)

    graph = single(forward, (1, 3, 5), a=linear(), b=linear(), c=linear(5, 2))
    found = sources(graph)
    behind = found[found["c.weight"][0]] if len(found["c.weight"]) == 1 else found["c.weight"]
    assert behind == ["a.weight", "b.weight"]


def test_writing_into_a_tensor_writes_into_its_views():
    def forward(self, x):
        a = self.a(x)
        view = a.flatten(1)
        a.add_(self.b(x))
        return self.c(view)

    graph = single(forward, (1, 3, 5), a=linear(), b=linear(), c=linear(15, 2))
    assert kinds(graph) == ["input", "conv", "conv", "sum", "conv"]


LATER = {
    "a view": lambda x: x.view(1, 15),
    "a part": lambda x: x[:, 1:].flatten(1).repeat(1, 2)[:, :15],
    "a view of a view": lambda x: x.transpose(1, 2)[:, 2:].reshape(1, 9).repeat(1, 2)[:, :15],
    "an expanded view": lambda x: x.narrow(1, 0, 1).expand(1, 3, 5).reshape(1, 15),
}


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("view", LATER.values(), ids=LATER)
def test_what_is_written_later_reaches_views_that_were_taken_before(view, constant):
    def forward(self, x):
        a = torch.zeros(1, 3, 5) if constant else self.a(x)
        part = a.narrow(1, 0, 3)
        a += self.b(x)
        return self.c(view(part))

    graph = single(forward, (1, 3, 5), a=linear(), b=linear(), c=linear(15, 2))
    assert sources(graph)["c.weight"] == (["b.weight"] if constant else ["sum"])


def test_what_is_written_into_a_view_reaches_its_siblings():
    def forward(self, x):
        a = self.a(x)
        first, second = a.chunk(2, 2)
        first.add_(self.b(x)[..., :3])
        return self.c(second)

    graph = single(forward, (1, 3, 5), a=linear(), b=linear(), c=linear(2, 2))
    assert sources(graph)["c.weight"] == ["sum"]


def test_functions_over_a_dimension_see_layers():
    def forward(self, x):
        return self.b(torch.func.vmap(lambda row: self.a(row).relu())(x))

    graph = single(forward, (2, 3, 5), a=linear(), b=linear(5, 2))
    assert kinds(graph) == ["input", "conv", "conv"]


@pytest.mark.parametrize("size", [5, 300_007])
def test_writing_into_a_new_tensor(size):
    def forward(self, x):
        out = torch.zeros(1, size, 5)
        out[:, :2] = self.a(x)[:, :2]
        out[:, 2:3].copy_(self.b(x)[:, 2:])
        return self.c(out)

    graph = single(forward, (1, 3, 5), a=linear(), b=linear(), c=linear(5, 2))
    assert sources(graph)["c.weight"] == ["a.weight", "b.weight"]
