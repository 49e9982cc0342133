"""Linear layers and attention that are written out as products."""

import math
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import GHN, GHNConfig, ParamSpec, from_module
from ghn_pyg.tracing.kept import Kept, enters
from tests.tracing.helpers import kinds, network, sources, weight

X = torch.rand(2, 3, 5)

# How each weight W is stored, where what enters is (2, 3, 5) and seven features leave.
LINEAR = {
    "linear of a transpose": (lambda self, x: F.linear(x, self.w.t()), (5, 7), "in_out"),
    "W @ x.mT": (lambda self, x: self.w @ x.mT, (7, 5), "out_in"),
    "W.t() @ x.mT": (lambda self, x: self.w.t() @ x.mT, (5, 7), "in_out"),
    "matmul(W, x)": (lambda self, x: torch.matmul(self.w, x.transpose(1, 2)), (7, 5), "out_in"),
    "mv": (lambda self, x: torch.mv(self.w, x[0, 0]), (7, 5), "out_in"),
    "mv of a transpose": (lambda self, x: self.w.t().mv(x[0, 0]), (5, 7), "in_out"),
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
}


@pytest.mark.parametrize(("forward", "shape", "layout"), LINEAR.values(), ids=LINEAR)
def test_a_product_over_one_dimension_of_a_matrix_is_a_linear_layer(forward, shape, layout):
    graph = from_module(network(forward, w=weight(*shape)), X)
    assert kinds(graph) == ["input", "conv"]
    (spec,) = graph.params[1]
    assert (spec.name, spec.shape, spec.role, spec.layout) == ("w", shape, "weight", layout)
    assert graph.node_shape[1].tolist() == [5 if shape == (5, 5) else 7, 5, 1, 1]
    assert graph.classifier.tolist() == [False, True]


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: torch.einsum("btc,tc->btc", x, self.w),
        lambda self, x: torch.einsum("btc,tc->b", x, self.w),
        lambda self, x: torch.einsum("btc,dc->bt", x, self.w),
        lambda self, x: torch.tensordot(x, self.w, dims=2),
        lambda self, x: F.bilinear(x, x, self.w.expand(2, -1, -1).new_ones(2, 5, 5)) + self.w.sum(),
    ],
)
def test_other_products_with_a_matrix_are_no_layers(forward):
    graph = from_module(
        network(lambda self, x: self.a(forward(self, x).sum()[None]), w=weight(3, 5), a=nn.Linear(1, 2)), X
    )
    assert kinds(graph) == ["input", "conv", "bias"]
    assert graph.kept["w"] in (Kept.OFFSET, enters("a product"), enters("a matrix product"))


# --- biases ----------------------------------------------------------------------------------------------------------

BIASES = {
    "x @ W + b": lambda self, x: x @ self.w + self.b,
    "b + x @ W": lambda self, x: self.b + x @ self.w,
    "+=": lambda self, x: operator.iadd(x @ self.w, self.b),
    "torch.add": lambda self, x: torch.add(torch.matmul(x, self.w), self.b),
    "einsum": lambda self, x: torch.einsum("btc,cd->btd", x, self.w) + self.b,
    "linear": lambda self, x: F.linear(x, self.w.t()) + self.b,
    "reshaped": lambda self, x: (x.flatten(0, 1) @ self.w).view(2, 3, 7) + self.b,
    "reshaped bias": lambda self, x: x @ self.w + self.b.view(1, 1, 7),
    "of channels first": lambda self, x: (self.w.t() @ x.mT) + self.b[:, None],
    "heads": lambda self, x: (x @ self.w).view(2, 3, 1, 7) + self.b.view(1, 7),
}


@pytest.mark.parametrize("forward", BIASES.values(), ids=BIASES)
def test_a_parameter_that_is_added_to_a_product_is_its_bias(forward):
    graph = from_module(network(forward, w=weight(5, 7), b=weight(7)), X)
    assert kinds(graph) == ["input", "conv", "bias"]
    assert graph.edge_index.tolist() == [[0, 1], [1, 2]]
    assert [(spec.name, spec.role) for (spec,) in graph.params[1:]] == [("w", "weight"), ("b", "bias")]
    assert graph.classifier.tolist() == [False, True, True]
    assert graph.kept == {}


def test_a_parameter_that_is_added_to_a_convolution_is_its_bias():
    def forward(self, x):
        return F.conv2d(x, self.w, padding=1) + self.b.view(-1, 1, 1)

    graph = from_module(network(forward, w=weight(5, 3, 3, 3), b=weight(5)), torch.rand(2, 3, 11, 13))
    assert kinds(graph) == ["input", "conv", "bias"]


def test_a_parameter_that_is_added_to_a_transposed_convolution_is_its_bias():
    def forward(self, x):
        return F.conv_transpose2d(x, self.w) + self.b.view(-1, 1, 1)

    graph = from_module(network(forward, w=weight(3, 5, 3, 3), b=weight(5)), torch.rand(2, 3, 11, 13))
    assert kinds(graph) == ["input", "conv", "bias"]
    assert [spec.layout for (spec,) in graph.params[1:]] == ["in_out", "out_in"]


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
    graph = from_module(network(forward, w=weight(7, 5), b=weight(7), c=weight(7)), X)
    assert "b" in graph.kept


# --- attention whose heads are mixed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_attention_whose_heads_a_layer_mixes(bias):
    def forward(self, x):
        q, k, v = self.qkv(x).view(1, 3, 3, 2, 5).permute(2, 0, 3, 1, 4)
        scores = self.before((q @ k.mT).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        scores = self.after(scores.softmax(-1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.out((scores @ v).transpose(1, 2).flatten(2))

    graph = from_module(
        network(
            forward, qkv=nn.Linear(10, 30, bias=False), before=nn.Linear(2, 2, bias=bias),
            after=nn.Linear(2, 2, bias=bias), out=nn.Linear(10, 10, bias=False),
        ),
        torch.rand(1, 3, 10),
    )  # fmt: skip
    mixed = ["conv", "bias"] if bias else ["conv"]
    assert kinds(graph) == ["input", "conv", *mixed, "msa", *mixed, "conv"]
    last = "after.bias" if bias else "after.weight"
    assert sources(graph)["msa"] == [last.replace("after", "before")]
    assert sources(graph)["after.weight"] == ["msa"]
    assert sources(graph)["out.weight"] == ["qkv.weight", last]


def test_a_layer_on_probabilities_that_weighs_no_values_is_no_attention():
    def forward(self, x):
        return self.c(self.b(self.a(x).softmax(-1)).relu())

    graph = from_module(network(forward, **{name: nn.Linear(5, 5, bias=False) for name in "abc"}), X)
    assert kinds(graph) == ["input", "conv", "conv", "conv"]


# --- stacks of matrices ----------------------------------------------------------------------------------------------

ROUTED = torch.tensor([0, 1, 2])
STACKS = {
    "bmm": (lambda self, x: torch.bmm(x, self.w), (3, 5, 7), "in_out"),
    "matmul": (lambda self, x: x @ self.w.mT, (3, 7, 5), "out_in"),
    "matmul in front": (lambda self, x: self.w @ x.mT, (3, 7, 5), "out_in"),
    "einsum": (lambda self, x: torch.einsum("etc,ecd->etd", x, self.w), (3, 5, 7), "in_out"),
    "einsum, turned": (lambda self, x: torch.einsum("etc,edc->etd", x, self.w), (3, 7, 5), "out_in"),
    "one after the other": (lambda self, x: sum(F.linear(x, self.w[e]) for e in range(3)), (3, 7, 5), "out_in"),
    "one after the other, turned": (lambda self, x: F.linear(x, self.w[1].t()), (3, 5, 7), "in_out"),
    "groups": (lambda self, x: F.grouped_mm(x.flatten(0, 1), self.w.mT, offs=ROUTED), (3, 7, 5), "out_in"),
    "square": (lambda self, x: x @ self.w, (3, 5, 5), "in_out"),
    "square, turned": (lambda self, x: x @ self.w.mT, (3, 5, 5), "out_in"),
}


@pytest.mark.parametrize(("forward", "shape", "layout"), STACKS.values(), ids=STACKS)
def test_a_stack_of_matrices_is_a_layer(forward, shape, layout):
    graph = from_module(network(forward, w=weight(*shape)), torch.zeros(3, 11, 5))
    spec = next(spec for specs in graph.params for spec in specs)
    assert (spec.name, spec.shape, spec.role, spec.layout, spec.stacked) == ("w", shape, "weight", layout, 1)
    assert graph.node_shape[1].tolist() == [5 if shape == (3, 5, 5) else 7, 5, 1, 1]
    assert kinds(graph)[:2] == ["input", "conv"]
    assert not graph.kept


def test_other_products_with_stacks_are_no_layers():
    def forward(self, x):
        return self.a(torch.einsum("etc,tec->et", x, self.w).sum()[None])

    graph = from_module(network(forward, w=weight(11, 3, 5), a=nn.Linear(1, 2)), torch.zeros(3, 11, 5))
    assert graph.kept == {"w": enters("a product")}


def test_all_matrices_of_a_stack_get_the_values_of_one():
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=3, num_classes=5, layers=1, heads=2))
    stack, single = (
        ghn.predict(
            from_module(
                network(lambda self, x: self.b(x @ self.w), w=weight(*shape), b=nn.Linear(7, 5)), torch.zeros(3, 2, 5)
            )
        )["w"]
        for shape in ((3, 5, 7), (5, 7))
    )
    assert stack.shape == (3, 5, 7)
    assert torch.equal(stack, single.expand(3, 5, 7))


BIASED = {
    "bmm": lambda self, x: torch.bmm(x, self.w) + self.b[:, None],
    "baddbmm": lambda self, x: torch.baddbmm(self.b[:, None], x, self.w),
    "one after the other": lambda self, x: sum(F.linear(x, self.w[e].t(), self.b[e]) for e in range(3)),
}


@pytest.mark.parametrize("forward", BIASED.values(), ids=BIASED)
def test_each_matrix_of_a_stack_has_a_bias_of_its_own(forward):
    graph = from_module(network(forward, w=weight(3, 5, 7), b=weight(3, 7)), torch.zeros(3, 11, 5))
    assert kinds(graph)[:3] == ["input", "conv", "bias"]
    assert graph.params[2] == [ParamSpec("b", (3, 7), "bias", stacked=1)]
    assert graph.node_shape[2].tolist() == [7, 1, 1, 1]
    assert not graph.kept


# Each weight of a stack is taken by a number that depends on activations, for each of 3 rows.
GATHERED = {
    "bmm": (lambda self, x, at: torch.bmm(x[:, :1], self.w[at]), (13, 5, 7), "in_out"),
    "bmm, first": (lambda self, x, at: torch.bmm(self.w[at], x[:, 0, :, None]), (13, 7, 5), "out_in"),
    "several": (lambda self, x, at: torch.einsum("bti,bkio->btko", x, self.w[at[:, None]]), (13, 5, 7), "in_out"),
}


@pytest.mark.parametrize(("forward", "shape", "layout"), GATHERED.values(), ids=GATHERED)
def test_matrices_that_are_gathered_are_a_layer(forward, shape, layout):
    net = network(
        lambda self, x: forward(self, x, self.gate(x[:, 0]).argmax(-1)), gate=nn.Linear(5, 13), w=weight(*shape)
    )
    graph = from_module(net, torch.zeros(3, 11, 5))
    assert graph.params[-1] == [ParamSpec("w", shape, "weight", layout, stacked=1)]
    assert sources(graph)["w"] == ["input", "gate.bias"]
    assert not graph.kept


OF_GATHERED = {
    "of rows": lambda self, x, at: torch.bmm(x, self.w[at]) + self.b[at][:, None],
    "of one row": lambda self, x, at: torch.bmm(x[:, :1], self.w[at])[:, 0] + self.b[at],
    "of one row, squeezed": lambda self, x, at: torch.bmm(x[:, :1], self.w[at]).squeeze(1) + self.b[at],
}


@pytest.mark.parametrize("product", OF_GATHERED.values(), ids=OF_GATHERED)
def test_the_biases_of_matrices_that_are_gathered(product):
    def forward(self, x):
        return product(self, x, self.gate(x[:, 0]).argmax(-1))

    graph = from_module(
        network(forward, gate=nn.Linear(5, 13), w=weight(13, 5, 7), b=weight(13, 7)), torch.zeros(3, 11, 5)
    )
    assert graph.params[-1] == [ParamSpec("b", (13, 7), "bias", stacked=1)]
    assert sources(graph)["b"] == ["w"]
    assert not graph.kept


def test_rows_of_a_codebook_are_no_weight():
    def forward(self, x):
        codes = self.codes[self.a(x).argmax(-1)]
        return self.b(x @ codes.mT)

    net = network(forward, a=nn.Linear(5, 13), b=nn.Linear(3, 2), codes=weight(13, 5))
    assert from_module(net, X).kept == {"codes": enters("indexing")}


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
    graph = from_module(
        network(lambda self, x: torch.einsum(equation, x, self.w), w=weight(*shape)), torch.zeros(entering)
    )
    assert kinds(graph) == ["input", "conv"]
    assert graph.params[1] == [ParamSpec("w", shape, "weight", axes=axes)]
    out, into = (math.prod(size for size, axis in zip(shape, axes, strict=True) if axis == kind) for kind in "oi")
    assert graph.node_shape[1].tolist() == [out, into, 1, 1]
    assert graph.classifier.tolist() == [False, True]


def test_a_weight_of_several_dimensions_gets_the_values_of_the_linear_layer_that_it_is():
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=4, num_classes=5, layers=1, heads=2))
    linear = network(
        lambda self, x: self.b(F.linear(x, self.w, self.c)), w=weight(6, 5), c=weight(6), b=nn.Linear(6, 7)
    )
    heads = network(
        lambda self, x: self.b((torch.einsum("bc,chd->bhd", x, self.w) + self.c).flatten(1)),
        w=weight(5, 3, 2), c=weight(3, 2), b=nn.Linear(6, 7),
    )  # fmt: skip
    one, other = (ghn.predict(from_module(net, torch.zeros(2, 5))) for net in (linear, heads))
    assert torch.equal(other["w"], one["w"].t().view(5, 3, 2))
    assert torch.equal(other["c"], one["c"].view(3, 2))


@pytest.mark.parametrize("shape", [(1, 7, 11), (7, 11), (1, 1, 7, 11)])
def test_the_bias_of_several_dimensions(shape):
    net = network(
        lambda self, x: torch.einsum("btc,chd->bthd", x, self.w) + self.b, w=weight(5, 7, 11), b=weight(*shape)
    )
    graph = from_module(net, X)
    assert kinds(graph) == ["input", "conv", "bias"]
    assert graph.params[2] == [ParamSpec("b", shape, "bias", axes="o" * len(shape))]
    assert graph.node_shape[2].tolist() == [77, 1, 1, 1]


def test_numbers_for_indices():
    net = network(lambda self, x: torch.einsum(x, [0, 1, 2], self.w, [2, 3], [0, 1, 3]), w=weight(5, 7))
    assert from_module(net, X).params[1] == [ParamSpec("w", (5, 7), "weight", "in_out")]


def test_a_bilinear_form():
    net = network(lambda self, x: self.p(self.a(x), x), a=nn.Linear(5, 3), p=nn.Bilinear(3, 5, 7))
    graph = from_module(net, X)
    assert kinds(graph) == ["input", "conv", "bias", "conv", "bias"]
    assert graph.params[3] == [ParamSpec("p.weight", (7, 3, 5), "weight", axes="oii")]
    assert sources(graph)["p.weight"] == ["input", "a.bias"]


THREE = {
    "the input first": ("bi,ir,ro->bo", lambda x, u, v: (x, u, v)),
    "the input last": ("ir,ro,bi->bo", lambda x, u, v: (u, v, x)),
    "the input between": ("ir,bi,ro->bo", lambda x, u, v: (u, x, v)),
}


@pytest.mark.parametrize(("equation", "order"), THREE.values(), ids=THREE)
def test_products_of_three(equation, order):
    net = network(lambda self, x: torch.einsum(equation, *order(x, self.u, self.v)), u=weight(5, 3), v=weight(3, 7))
    graph = from_module(net, X[0])
    assert kinds(graph) == ["input", "conv", "conv"]
    assert [specs[0] for specs in graph.params[1:]] == [
        ParamSpec("u", (5, 3), "weight", "in_out"), ParamSpec("v", (3, 7), "weight", "in_out")
    ]  # fmt: skip


# --- something that is added -----------------------------------------------------------------------------------------


def test_an_activation_that_is_added_to_a_product_is_part_of_a_sum():
    net = network(lambda self, x: torch.addmm(self.a(x), x, self.w), a=nn.Linear(5, 7, bias=False), w=weight(5, 7))
    graph = from_module(net, X[0])
    assert kinds(graph) == ["input", "conv", "conv", "sum"]
    assert sources(graph)["sum"] == ["a.weight", "w"]


def test_what_is_added_with_a_weight_of_zero_does_not_enter():
    net = network(lambda self, x: torch.addmm(self.a(x), x, self.w, beta=0), a=nn.Linear(5, 7), w=weight(5, 7))
    assert sources(from_module(net, X[0]))["w"] == ["input"]


def test_a_sum_of_products_of_a_stack():
    net = network(lambda self, x: torch.addbmm(self.b, x, self.w), w=weight(2, 5, 7), b=weight(7))
    graph = from_module(net, X)
    assert kinds(graph) == ["input", "conv", "bias"]
    assert graph.params[1] == [ParamSpec("w", (2, 5, 7), "weight", axes="iio")]


def test_factors_by_name_have_their_order():
    forward = lambda self, x: torch.addmm(self.b, mat2=self.w, mat1=x)  # noqa: E731
    graph = from_module(network(forward, w=weight(5, 3), b=weight(3)), torch.zeros(7, 5))
    assert [(spec.name, spec.layout) for specs in graph.params for spec in specs] == [("w", "in_out"), ("b", "out_in")]
