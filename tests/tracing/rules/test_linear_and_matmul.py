"""Linear layers, and products that are linear layers."""

import math
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import ParamSpec
from ghn_pyg.tracing.kept_reasons import enters
from tests.tracing.helpers import kinds, sources, weight
from tests.tracing.rules.helpers import graph_of, linear, small_ghn

X = torch.rand(2, 3, 5)

ROUTED = torch.tensor([0, 1, 2])
# Products with a matrix, and with a stack of three: how the weight is stored, if five features enter and seven leave.
LINEAR = {
    "x @ W": (lambda self, x: x @ self.w, (5, 7), "in_out"),
    "x @ W.t()": (lambda self, x: x @ self.w.t(), (7, 5), "out_in"),
    "x @ W.mT": (lambda self, x: x @ self.w.mT, (7, 5), "out_in"),
    "matmul by keyword": (lambda self, x: torch.matmul(input=x, other=self.w), (5, 7), "in_out"),
    "mm": (lambda self, x: torch.mm(x[0], self.w), (5, 7), "in_out"),
    "square": (lambda self, x: x @ self.w, (5, 5), "in_out"),
    "square transpose": (lambda self, x: x @ self.w.t(), (5, 5), "out_in"),
    "addmm": (lambda self, x: torch.addmm(torch.zeros(7), x[0], self.w), (5, 7), "in_out"),
    "scaled": (lambda self, x: x @ (self.w * 0.5), (5, 7), "in_out"),
    "linear": (lambda self, x: F.linear(x, self.w), (7, 5), "out_in"),
    "linear by keyword": (lambda self, x: F.linear(input=x, weight=self.w), (7, 5), "out_in"),
    "linear of a transpose": (lambda self, x: F.linear(x, self.w.t()), (5, 7), "in_out"),
    "W @ x.mT": (lambda self, x: self.w @ x.mT, (7, 5), "out_in"),
    "W.t() @ x.mT": (lambda self, x: self.w.t() @ x.mT, (5, 7), "in_out"),
    "mv": (lambda self, x: torch.mv(self.w, x[0, 0]), (7, 5), "out_in"),
    "square, first": (lambda self, x: self.w @ x.mT, (5, 5), "out_in"),
    "square transpose, first": (lambda self, x: self.w.t() @ x.mT, (5, 5), "in_out"),
    "bi,oi->bo": (lambda self, x: torch.einsum("bi,oi->bo", x[0], self.w), (7, 5), "out_in"),
    "bi,io->bo": (lambda self, x: torch.einsum("bi,io->bo", x[0], self.w), (5, 7), "in_out"),
    "oi,bi->bo": (lambda self, x: torch.einsum("oi,bi->bo", self.w, x[0]), (7, 5), "out_in"),
    "...i,oi->...o": (lambda self, x: torch.einsum("... i, o i -> ... o", x, self.w), (7, 5), "out_in"),
    "btc,dc->bdt": (lambda self, x: torch.einsum("btc,dc->bdt", [x, self.w]), (7, 5), "out_in"),
    "square einsum": (lambda self, x: torch.einsum("bi,oi->bo", x[0], self.w), (5, 5), "out_in"),
    "square einsum, in first": (lambda self, x: torch.einsum("bi,io->bo", x[0], self.w), (5, 5), "in_out"),
    "einsum of a transpose": (lambda self, x: torch.einsum("bi,oi->bo", x[0], self.w.t()), (5, 7), "in_out"),
    "tensordot": (lambda self, x: torch.tensordot(x, self.w, dims=1), (5, 7), "in_out"),
    "tensordot of dimensions": (lambda self, x: torch.tensordot(x, self.w, dims=([2], [1])), (7, 5), "out_in"),
    "tensordot, first": (lambda self, x: torch.tensordot(self.w, x, dims=([1], [2])), (7, 5), "out_in"),
    "stack, bmm": (lambda self, x: torch.bmm(x, self.w), (3, 5, 7), "in_out"),
    "stack, matmul": (lambda self, x: x @ self.w.mT, (3, 7, 5), "out_in"),
    "stack first": (lambda self, x: self.w @ x.mT, (3, 7, 5), "out_in"),
    "stack, einsum": (lambda self, x: torch.einsum("etc,ecd->etd", x, self.w), (3, 5, 7), "in_out"),
    "stack, einsum, out first": (lambda self, x: torch.einsum("etc,edc->etd", x, self.w), (3, 7, 5), "out_in"),
    "stack, a loop": (lambda self, x: sum(F.linear(x, self.w[e]) for e in range(3)), (3, 7, 5), "out_in"),
    "stack, one of its matrices": (lambda self, x: F.linear(x, self.w[1].t()), (3, 5, 7), "in_out"),
    "stack, groups": (lambda self, x: F.grouped_mm(x.flatten(0, 1), self.w.mT, offs=ROUTED), (3, 7, 5), "out_in"),
    "stack, square": (lambda self, x: x @ self.w, (3, 5, 5), "in_out"),
    "stack, square transpose": (lambda self, x: x @ self.w.mT, (3, 5, 5), "out_in"),
}


@pytest.mark.parametrize(("forward", "shape", "layout"), LINEAR.values(), ids=LINEAR)
def test_a_product_with_a_matrix_is_a_linear_layer(forward, shape, layout):
    stacked = len(shape) - 2
    graph = graph_of(forward, torch.zeros(3, 11, 5) if stacked else X, w=weight(*shape))
    assert kinds(graph)[:2] == ["input", "conv"]
    assert graph.params[1] == [ParamSpec("w", shape, "weight", layout, stacked=stacked)]
    assert graph.node_shape[1].tolist() == [5 if shape[-2:] == (5, 5) else 7, 5, 1, 1]
    assert stacked or graph.classifier.tolist() == [False, True]
    assert not graph.kept


@pytest.mark.parametrize(
    ("forward", "shape"),
    [
        (lambda self, x: torch.einsum("btc,tc->btc", x, self.w), (3, 5)),
        (lambda self, x: torch.einsum("btc,tc->b", x, self.w), (3, 5)),
        (lambda self, x: torch.einsum("btc,dc->bt", x, self.w), (3, 5)),
        (lambda self, x: torch.tensordot(x, self.w, dims=2), (3, 5)),
        (lambda self, x: torch.einsum("etc,tec->et", x, self.w), (3, 2, 5)),
    ],
)
def test_other_products_with_a_matrix_are_no_layers(forward, shape):
    graph = graph_of(lambda self, x: self.a(forward(self, x).sum()[None]), X, w=weight(*shape), a=nn.Linear(1, 2))
    assert kinds(graph) == ["input", "conv", "bias"]
    assert graph.kept == {"w": enters("a product")}


# --- biases ----------------------------------------------------------------------------------------------------------

BIASES = {
    "x @ W + b": lambda self, x: x @ self.w + self.b,
    "b + x @ W": lambda self, x: self.b + x @ self.w,
    "+=": lambda self, x: operator.iadd(x @ self.w, self.b),
    "torch.add": lambda self, x: torch.add(torch.matmul(x, self.w), self.b),
    "einsum": lambda self, x: torch.einsum("btc,cd->btd", x, self.w) + self.b,
    "linear": lambda self, x: F.linear(x, self.w.t()) + self.b,
    "reshaped": lambda self, x: (x.flatten(0, 1) @ self.w).view(2, 3, 7) + self.b,
    "addmm": lambda self, x: torch.addmm(self.b, x[0], self.w),
    "reshaped bias": lambda self, x: x @ self.w + self.b.view(1, 1, 7),
    "of channels first": lambda self, x: (self.w.t() @ x.mT) + self.b[:, None],
    "heads": lambda self, x: (x @ self.w).view(2, 3, 1, 7) + self.b.view(1, 7),
}


@pytest.mark.parametrize("forward", BIASES.values(), ids=BIASES)
def test_a_parameter_that_is_added_to_a_product_is_its_bias(forward):
    graph = graph_of(forward, X, w=weight(5, 7), b=weight(7))
    assert kinds(graph) == ["input", "conv", "bias"]
    assert graph.edge_index.tolist() == [[0, 1], [1, 2]]
    assert [(spec.name, spec.role) for (spec,) in graph.params[1:]] == [("w", "weight"), ("b", "bias")]
    assert graph.classifier.tolist() == [False, True, True]
    assert graph.kept == {}


MAP, ROWS = torch.rand(2, 3, 11, 13), torch.zeros(3, 11, 5)
# Forward pass, input, shapes of weight and bias, and how the bias is decoded.
OTHER_BIASES = {
    "conv": (lambda self, x: F.conv2d(x, self.w) + self.b.view(-1, 1, 1), MAP, (5, 3, 3, 3), (5,), {}),
    "transposed conv": (
        lambda self, x: F.conv_transpose2d(x, self.w) + self.b.view(-1, 1, 1), MAP, (3, 5, 3, 3), (5,), {}
    ),
    "stack": (lambda self, x: torch.bmm(x, self.w) + self.b[:, None], ROWS, (3, 5, 7), (3, 7), {"stacked": 1}),
    "baddbmm": (lambda self, x: torch.baddbmm(self.b[:, None], x, self.w), ROWS, (3, 5, 7), (3, 7), {"stacked": 1}),
    "a loop": (
        lambda self, x: sum(F.linear(x, self.w[e].t(), self.b[e]) for e in range(3)), ROWS, (3, 5, 7), (3, 7),
        {"stacked": 1},
    ),
    **{
        f"heads {shape}": (
            lambda self, x: torch.einsum("btc,chd->bthd", x, self.w) + self.b, X, (5, 7, 11), shape,
            {"axes": "o" * len(shape)},
        )
        for shape in ((1, 7, 11), (7, 11), (1, 1, 7, 11))
    },
}  # fmt: skip


@pytest.mark.parametrize(("forward", "x", "shape", "bias", "options"), OTHER_BIASES.values(), ids=OTHER_BIASES)
def test_biases_of_other_shapes(forward, x, shape, bias, options):
    graph = graph_of(forward, x, w=weight(*shape), b=weight(*bias))
    assert kinds(graph)[:3] == ["input", "conv", "bias"]
    assert graph.params[2] == [ParamSpec("b", bias, "bias", **options)]
    assert graph.node_shape[2].tolist() == [math.prod(bias[options.get("stacked", 0) :]), 1, 1, 1]
    assert not graph.kept


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: F.linear(x, self.w, self.c) + self.b,
        lambda self, x: F.linear(x, self.w).relu() + self.b,
        lambda self, x: F.linear(x, self.w) + self.b[:3, None],
        lambda self, x: F.linear(x, self.w) * self.b,
        lambda self, x: x.repeat(1, 1, 2)[..., :7] + self.b,
    ],
    ids=["a second one", "after an activation", "of another size", "a factor", "of no layer"],
)
def test_other_parameters_are_no_biases(forward):
    graph = graph_of(forward, X, w=weight(7, 5), b=weight(7), c=weight(7))
    assert "b" in graph.kept


# --- stacks of matrices ----------------------------------------------------------------------------------------------


def test_all_matrices_of_a_stack_get_the_values_of_one():
    torch.manual_seed(0)
    ghn = small_ghn()
    stack, single = (
        ghn.predict(
            graph_of(lambda self, x: self.b(x @ self.w), torch.zeros(3, 2, 5), w=weight(*shape), b=nn.Linear(7, 5))
        )["w"]
        for shape in ((3, 5, 7), (5, 7))
    )
    assert stack.shape == (3, 5, 7)
    assert torch.equal(stack, single.expand(3, 5, 7))


# Each of 3 rows looks up a matrix of a stack, and perhaps its bias, by a number that depends on activations.
GATHERED = {
    "bmm": (lambda self, x, at: torch.bmm(x[:, :1], self.w[at]), (13, 5, 7), "in_out", None),
    "bmm, first": (lambda self, x, at: torch.bmm(self.w[at], x[:, 0, :, None]), (13, 7, 5), "out_in", None),
    "several": (lambda self, x, at: torch.einsum("bti,bkio->btko", x, self.w[at[:, None]]), (13, 5, 7), "in_out", None),
    "bias": (lambda self, x, at: torch.bmm(x, self.w[at]) + self.b[at][:, None], (13, 5, 7), "in_out", (13, 7)),
    "one row": (lambda self, x, at: torch.bmm(x[:, :1], self.w[at])[:, 0] + self.b[at], (13, 5, 7), "in_out", (13, 7)),
    "squeezed": (lambda self, x, at: (x[:, :1] @ self.w[at]).squeeze(1) + self.b[at], (13, 5, 7), "in_out", (13, 7)),
}


@pytest.mark.parametrize(("product", "shape", "layout", "bias"), GATHERED.values(), ids=GATHERED)
def test_matrices_that_are_looked_up_are_a_layer(product, shape, layout, bias):
    def forward(self, x):
        return product(self, x, self.gate(x[:, 0]).argmax(-1))

    members = {"gate": nn.Linear(5, 13), "w": weight(*shape)} | ({"b": weight(*bias)} if bias else {})
    graph = graph_of(forward, torch.zeros(3, 11, 5), **members)
    biases = [[ParamSpec("b", bias, "bias", stacked=1)]] if bias else []
    assert graph.params[3:] == [[ParamSpec("w", shape, "weight", layout, stacked=1)], *biases]
    assert sources(graph)["w"] == ["input", "gate.bias"]
    assert not graph.kept


# --- weights of several dimensions -----------------------------------------------------------------------------------

# Equation, shape of what enters, shape of the weight, and what each of its dimensions is.
SEVERAL = {
    "heads leave": ("btc,chd->bthd", (2, 3, 5), (5, 7, 11), "ioo"),
    "heads of a matrix each leave": ("btc,hcd->bthd", (2, 3, 5), (7, 5, 11), "oio"),
    "heads enter": ("bthd,hde->bte", (2, 3, 7, 5), (7, 5, 11), "iio"),
    "heads enter, out first": ("bthd,ehd->bte", (2, 3, 7, 5), (11, 7, 5), "oii"),
    "queries, keys and values": ("btc,schd->sbthd", (2, 11, 5), (3, 5, 7, 2), "oioo"),
    "experts that the input does not have": ("ni,eih->neh", (2, 5), (3, 5, 7), "oio"),
    "a matrix for each head, in the middle": ("btnh,dnh->btnd", (2, 3, 7, 5), (11, 7, 5), "osi"),
    "a matrix for each place": ("bkl,okl->bol", (2, 5, 7), (11, 5, 7), "ois"),
    "functions of features": ("big,iog->bo", (2, 5, 3), (5, 7, 3), "ioi"),
    "frequencies": ("bixy,ioxy->boxy", (2, 5, 3, 11), (5, 7, 3, 11), "ioss"),
    "implicit result": ("btc,cyz", (2, 3, 5), (5, 7, 11), "ioo"),
    "ellipsis": ("...c,chd->...hd", (2, 3, 5), (5, 7, 11), "ioo"),
}


@pytest.mark.parametrize(("equation", "entering", "shape", "axes"), SEVERAL.values(), ids=SEVERAL)
def test_a_weight_of_several_dimensions_is_that_of_a_linear_layer(equation, entering, shape, axes):
    graph = graph_of(lambda self, x: torch.einsum(equation, x, self.w), torch.zeros(entering), w=weight(*shape))
    assert kinds(graph) == ["input", "conv"]
    assert graph.params[1] == [ParamSpec("w", shape, "weight", axes=axes)]
    out, into = (math.prod(size for size, axis in zip(shape, axes, strict=True) if axis == kind) for kind in "oi")
    assert graph.node_shape[1].tolist() == [out, into, 1, 1]
    assert graph.classifier.tolist() == [False, True]


def test_a_weight_of_several_dimensions_gets_the_values_of_the_linear_layer_that_it_is():
    torch.manual_seed(0)
    ghn = small_ghn(max_channels=4)
    one = graph_of(
        lambda self, x: self.b(F.linear(x, self.w, self.c)), torch.zeros(2, 5), w=weight(6, 5), c=weight(6),
        b=nn.Linear(6, 7),
    )  # fmt: skip
    other = graph_of(
        lambda self, x: self.b((torch.einsum("bc,chd->bhd", x, self.w) + self.c).flatten(1)), torch.zeros(2, 5),
        w=weight(5, 3, 2), c=weight(3, 2), b=nn.Linear(6, 7),
    )  # fmt: skip
    one, other = ghn.predict(one), ghn.predict(other)
    assert torch.equal(other["w"], one["w"].t().view(5, 3, 2))
    assert torch.equal(other["c"], one["c"].view(3, 2))


# Forward pass, shapes of its parameters, and what each of them is, in the order of the nodes.
U, V = ParamSpec("u", (5, 3), "weight", "in_out"), ParamSpec("v", (3, 7), "weight", "in_out")
BIAS = ParamSpec("v", (7,), "bias")
CHAINS = {
    "numbers for indices": (lambda self, x: torch.einsum(x, [0, 1], self.u, [1, 2], [0, 2]), [U]),
    "three, the input first": (lambda self, x: torch.einsum("bi,ir,ro->bo", x, self.u, self.v), [U, V]),
    "three, the input last": (lambda self, x: torch.einsum("ir,ro,bi->bo", self.u, self.v, x), [U, V]),
    "three, the input between": (lambda self, x: torch.einsum("ir,bi,ro->bo", self.u, x, self.v), [U, V]),
    "factors by name": (
        lambda self, x: torch.addmm(self.v, mat2=self.u, mat1=x),
        [ParamSpec("u", (5, 7), "weight", "in_out"), BIAS],
    ),
    "a sum over a stack": (
        lambda self, x: torch.addbmm(self.v, x.expand(2, 3, 5), self.u),
        [ParamSpec("u", (2, 5, 7), "weight", axes="iio"), BIAS],
    ),
}


@pytest.mark.parametrize(("forward", "specs"), CHAINS.values(), ids=CHAINS)
def test_a_product_is_a_chain_of_layers(forward, specs):
    graph = graph_of(forward, X[0], **{spec.name: weight(*spec.shape) for spec in specs})
    assert kinds(graph)[1:] == ["bias" if spec.role == "bias" else "conv" for spec in specs]
    assert graph.params[1:] == [[spec] for spec in specs]


def test_a_bilinear_form():
    graph = graph_of(lambda self, x: self.p(self.a(x), x), X, a=nn.Linear(5, 3), p=nn.Bilinear(3, 5, 7))
    assert kinds(graph) == ["input", "conv", "bias", "conv", "bias"]
    assert graph.params[3] == [ParamSpec("p.weight", (7, 3, 5), "weight", axes="oii")]
    assert sources(graph)["p.weight"] == ["input", "a.bias"]


@pytest.mark.parametrize(("beta", "last"), [(1, ["conv", "conv", "sum"]), (0, ["conv", "conv"])])
def test_an_activation_that_is_added_to_a_product_joins_it_unless_its_factor_is_zero(beta, last):
    def forward(self, x):
        return torch.addmm(self.a(x), x, self.w, beta=beta)

    graph = graph_of(forward, X[0], a=linear(5, 7), w=weight(5, 7))
    assert kinds(graph) == ["input", *last]
    assert sources(graph)["w"] == ["input"]
    assert sources(graph).get("sum", ["a.weight", "w"]) == ["a.weight", "w"]
