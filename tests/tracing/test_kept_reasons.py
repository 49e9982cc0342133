"""Tests of why parameters are kept, and of rules that predict them all the same."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import GHN, CoverageError, GHNConfig, coverage, from_module, register_parameter
from ghn_pyg.tracing import kept_reasons as reasons
from ghn_pyg.tracing.kept_reasons import Kept, enters
from tests.tracing.helpers import kinds, network, sources, weight

X = torch.zeros(2, 11, 5)


@pytest.fixture(autouse=True)
def _registered_rules_are_forgotten(monkeypatch):
    monkeypatch.setattr(reasons, "PARAMETER_RULES", {})


def scaled(*shape):
    return network(
        lambda self, x: self.b(x + self.a(x) * self.p), a=nn.Linear(5, 5, bias=False), b=nn.Linear(5, 2, bias=False),
        p=weight(*shape),
    )  # fmt: skip


def test_a_rule_makes_a_node_where_the_parameter_enters():
    calls = []

    @register_parameter(Kept.LAYER_SCALE)
    def gains(name, parameter):
        calls.append((name, tuple(parameter.shape)))
        return "ln", "gain"

    graph = from_module(scaled(5), X)
    assert calls == [("p", (5,))]
    assert graph.kept == {}
    assert graph.node_names == ["input", "a.weight", "p", "sum", "b.weight"]
    assert graph.edge_index.t().tolist() == [[0, 1], [1, 2], [0, 3], [2, 3], [3, 4]]
    (spec,) = graph.params[2]
    assert (spec.role, spec.shape) == ("gain", (5,))


def test_a_rule_may_keep_parameters():
    register_parameter(Kept.LAYER_SCALE)(lambda name, parameter: None)
    assert from_module(scaled(5), X).kept == {"p": Kept.LAYER_SCALE}


def test_a_rule_applies_to_its_reason_only():
    register_parameter(Kept.TOKEN)(lambda name, parameter: ("bn", "gain"))
    assert from_module(scaled(5), X).kept == {"p": Kept.LAYER_SCALE}


def test_tokens_may_become_positions():
    register_parameter(Kept.TOKEN)(lambda name, parameter: ("pos_enc", "position"))
    graph = from_module(
        network(
            lambda self, x: self.a(torch.cat([self.p.expand(2, -1, -1), x], 1)), a=nn.Linear(5, 3), p=weight(1, 1, 5)
        ),
        X,
    )
    assert kinds(graph) == ["input", "pos_enc", "conv", "bias"]
    assert graph.edge_index.t().tolist() == [[0, 2], [1, 2], [2, 3]]


def test_tables_of_attention_may_be_predicted():
    register_parameter(Kept.POSITION_BIAS)(lambda name, parameter: ("pos_enc", "position"))

    def forward(self, x):
        near = (torch.arange(11)[:, None] - torch.arange(11)).clamp(-2, 2) + 2
        return (x @ x.mT + self.p(near)[..., 0]).softmax(-1) @ x

    graph = from_module(network(forward, p=nn.Embedding(5, 1)), X)
    assert graph.kept == {}
    assert kinds(graph) == ["input", "pos_enc", "sum", "msa"]


def test_a_parameter_that_another_node_predicts_has_no_second_node():
    register_parameter(Kept.LAYER_SCALE)(lambda name, parameter: ("bn", "gain"))
    graph = from_module(network(lambda self, x: self.a(x) * self.a.bias, a=nn.Linear(5, 5)), X)
    assert kinds(graph) == ["input", "conv", "bias"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("bn", r"must return \(node type, role\) or None, got 'bn'"),
        (("batch", "gain"), "returned the node type 'batch'; expected"),
        (
            ("bn", "weight"),
            "with role 'weight' in a node of type 'bn', which takes parameters of role 'gain' or 'bias'",
        ),
        (("pos_enc", "position"), "expected 2 to 6 dimensions, and it has shape"),
    ],
)
def test_an_invalid_answer_is_an_error(answer, message):
    register_parameter(Kept.LAYER_SCALE)(lambda name, parameter: answer)
    with pytest.raises(ValueError, match=message):
        from_module(scaled(5), X)


@pytest.mark.parametrize("reason", [Kept.UNUSED, "it is odd"])
def test_only_reasons_kept_on_purpose_can_have_a_rule(reason):
    with pytest.raises(ValueError, match=r"expected one of Kept.LAYER_SCALE, .*, got"):
        register_parameter(reason)


def attend(query, x):
    return torch.nn.functional.scaled_dot_product_attention(query.expand(len(x), -1, -1), x, x)


ENTERING = {
    "a layer": lambda self, x: attend(self.a(self.p), x),
    "a norm": lambda self, x: attend(self.norm(self.p), x),
    "attention": lambda self, x: attend(self.p, self.a(x)),
    "attention with layers": lambda self, x: self.attention(self.p.expand(2, -1, -1), x, x)[0],
    "a layer that makes weights": lambda self, x: torch.nn.functional.linear(x, self.make(self.p.flatten()).view(3, 5)),
}


@pytest.mark.parametrize("forward", ENTERING.values(), ids=ENTERING)
def test_a_parameter_that_enters_as_an_activation_is_a_token(forward):
    parts = {"a": nn.Linear(5, 5), "norm": nn.LayerNorm(5), "make": nn.Linear(15, 15),
             "attention": nn.MultiheadAttention(5, 1, batch_first=True)}  # fmt: skip
    graph = from_module(network(forward, p=weight(1, 3, 5), **parts), X)
    unused = parts.keys() - {name.partition(".")[0] for name in graph.node_names}
    assert {name.partition(".")[0]: reason for name, reason in graph.kept.items()} == {
        "p": Kept.TOKEN, **dict.fromkeys(unused, Kept.UNUSED)
    }  # fmt: skip


def test_a_norm_of_a_token_is_a_norm():
    graph = from_module(network(ENTERING["a norm"], p=weight(1, 3, 5), norm=nn.LayerNorm(5)), X)
    assert kinds(graph) == ["input", "ln", "msa"]
    assert [(spec.name, spec.role) for spec in graph.params[1]] == [("norm.weight", "gain"), ("norm.bias", "bias")]


def test_weights_that_activations_modulate_are_weights():
    def forward(self, x, style):
        weights = (self.p * self.a(style)[:, None, :, None, None]).reshape(14, 5, 3, 3)
        return torch.nn.functional.conv2d(x.reshape(1, 10, 4, 4), weights, groups=2)

    graph = from_module(
        network(forward, p=weight(7, 5, 3, 3), a=nn.Linear(3, 5)), (torch.zeros(2, 5, 4, 4), torch.zeros(2, 3))
    )
    assert graph.kept == {}
    assert graph.node_names == ["input", "a.weight", "a.bias", "p"]
    assert (graph.params[3][0].role, graph.params[3][0].shape) == ("weight", (7, 5, 3, 3))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((5,), Kept.LAYER_SCALE), ((11, 1), Kept.LAYER_SCALE), ((11, 5), Kept.LAYER_SCALE),
     ((2, 11, 5), enters("a product with activations"))],
)  # fmt: skip
def test_a_filter_of_all_places_is_no_scale(shape, reason):
    assert from_module(scaled(*shape), X).kept == {"p": reason}


def test_a_scale_of_a_mean_is_one():
    graph = from_module(network(lambda self, x: self.a(x.mean(1) * self.p.exp()), a=nn.Linear(5, 3), p=weight(5)), X)
    assert graph.kept == {"p": Kept.LAYER_SCALE}


def test_rows_that_are_looked_up_by_ids_are_an_embedding():
    forward = lambda self, ids: self.a(self.p[ids] + self.q.index_select(0, ids))  # noqa: E731
    graph = from_module(network(forward, p=weight(11, 5), q=weight(7, 5), a=nn.Linear(5, 3)), torch.arange(6))
    assert graph.kept == {}
    assert kinds(graph) == ["input", "pos_enc", "pos_enc", "sum", "conv", "bias"]


def test_rows_that_activations_choose_are_kept():
    forward = lambda self, x: self.a(self.p[self.a(x).argmax(-1)])  # noqa: E731
    graph = from_module(network(forward, p=weight(11, 5), a=nn.Linear(5, 3)), X)
    assert graph.kept == {"p": enters("indexing")}


# --- types that cannot hold a prediction -----------------------------------------------------------------------------

INTEGERS = {
    "int8": lambda shape: torch.full(shape, 3, dtype=torch.int8), "bool": lambda shape: torch.ones(shape).bool(),
    "int64": lambda shape: torch.full(shape, 3),
}  # fmt: skip
FLOAT8 = {"float8": lambda shape: torch.full(shape, 3.0).to(torch.float8_e4m3fn)}
COMPLEX = {"complex": lambda shape: torch.full(shape, 3 + 2j)}
USES = {
    "linear": (lambda self, h: F.linear(h, self.w.to(h.dtype)), (5, 5)),
    "product": (lambda self, h: h @ self.w.to(h.dtype), (5, 5)),
    "convolution": (lambda self, h: F.conv1d(h.mT, self.w.to(h.dtype)).mT, (5, 5, 1)),
    "gain of a norm": (lambda self, h: F.layer_norm(h, (5,), self.w.to(h.dtype)), (5,)),
    "bias": (lambda self, h: F.linear(h, torch.eye(5), self.w.to(h.dtype)), (5,)),
    "bias after a norm": (lambda self, h: F.layer_norm(h, (5,)) + self.w.to(h.dtype), (5,)),
    "scale": (lambda self, h: h * self.w.to(h.dtype), (5,)),
    "positions": (lambda self, h: h + self.w.to(h.dtype), (1, 11, 5)),
    "nothing": (lambda self, h: h, (5, 5)),
}


def with_type(use, w):
    return network(
        lambda self, x: self.b(use(self, self.a(x))), a=nn.Linear(5, 5), b=nn.Linear(5, 2),
        w=nn.Parameter(w, requires_grad=w.is_complex()),
    )  # fmt: skip


@pytest.mark.parametrize("make", (INTEGERS | FLOAT8 | COMPLEX).values(), ids=INTEGERS | FLOAT8 | COMPLEX)
@pytest.mark.parametrize(("use", "shape"), USES.values(), ids=USES)
def test_parameters_of_other_types_are_kept_whatever_they_do(use, shape, make):
    model = with_type(use, make(shape))
    before = model.w.detach().clone()
    expected = Kept.COMPLEX if before.is_complex() else Kept.QUANTISED if before.is_floating_point() else Kept.INTEGER
    graph = from_module(model, X)
    assert graph.kept == {"w": expected}
    assert {spec.name for specs in graph.params for spec in specs} == {"a.weight", "a.bias", "b.weight", "b.bias"}
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))
    prediction = ghn.predict(graph)
    assert prediction.kept == {"w": expected}
    assert "w" not in prediction
    ghn(model, X)
    assert torch.equal(model.w.detach().view(torch.uint8), before.view(torch.uint8))
    report = coverage(model, X)
    assert [row.why for row in report.kept] == [expected]
    assert report.share < 1


@pytest.mark.parametrize("make", (INTEGERS | FLOAT8).values(), ids=INTEGERS | FLOAT8)
def test_what_no_ghn_could_predict_is_no_gap(make):
    report = coverage(with_type(USES["linear"][0], make((5, 5))), X)
    assert report.layer_share == 1
    report.check()


def test_complex_weights_are_a_gap():
    model = network(
        lambda self, x: self.b(torch.fft.ifft(torch.fft.fft(x) @ self.w).real), b=nn.Linear(5, 2),
        w=nn.Parameter(torch.rand(5, 5, dtype=torch.complex64)),
    )  # fmt: skip
    report = coverage(model, X)
    assert report.layer_share == pytest.approx(10 / 35)
    with pytest.raises(CoverageError, match="complex"):
        GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))(model, X, strict=True)


def test_layers_around_a_quantised_weight_stay_in_order():
    def forward(self, x):
        return self.b(F.linear(F.relu(self.a(x)), self.w.to(x.dtype) * self.scale[:, None], self.bias))

    model = network(
        forward, a=nn.Linear(5, 7), w=nn.Parameter(torch.ones(3, 7, dtype=torch.int8), requires_grad=False),
        scale=weight(3), bias=weight(3), b=nn.Linear(3, 2),
    )  # fmt: skip
    graph = from_module(model, X)
    assert kinds(graph) == ["input", "conv", "bias", "conv", "bias", "conv", "bias"]
    assert graph.params[3] == []
    assert graph.kept == {"w": Kept.INTEGER, "scale": Kept.MAGNITUDE}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_parameters_of_quantised_types():
    stored = torch.quantize_per_tensor(torch.rand(5, 5), 0.1, 0, torch.qint8)
    model = network(
        lambda self, x: self.b(F.linear(x, self.w.dequantize())), b=nn.Linear(5, 2),
        w=nn.Parameter(stored, requires_grad=False),
    )  # fmt: skip
    assert from_module(model, X).kept == {"w": Kept.QUANTISED}
    assert sources(from_module(model, X))["b.weight"] == ["conv"]


def test_sparse_parameters_are_kept():
    model = network(
        lambda self, x: self.b(self.a(torch.sparse.mm(self.w, x))), a=nn.Linear(5, 3), b=nn.Linear(3, 2),
        w=nn.Parameter(torch.eye(7).to_sparse(), requires_grad=False),
    )  # fmt: skip
    assert from_module(model, torch.rand(7, 5)).kept == {"w": Kept.SPARSE}
    GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))(model, torch.rand(7, 5))
    assert torch.equal(model.w.to_dense(), torch.eye(7))
