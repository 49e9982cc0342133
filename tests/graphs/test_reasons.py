"""Tests of why parameters are kept, and of rules that predict them all the same."""

import pytest
import torch
from torch import nn

from ghn_pyg import from_module, register_parameter
from ghn_pyg.graphs import reasons
from ghn_pyg.graphs.reasons import DELIBERATE, Kept, enters
from tests.graphs.tracing import kinds, network, weight

X = torch.zeros(2, 11, 5)


@pytest.fixture(autouse=True)
def _no_rules_stay(monkeypatch):
    monkeypatch.setattr(reasons, "PARAMETER_RULES", {})


def scaled(*shape):
    return network(
        lambda self, x: self.b(x + self.a(x) * self.p), a=nn.Linear(5, 5, bias=False), b=nn.Linear(5, 2, bias=False),
        p=weight(*shape),
    )  # fmt: skip


def test_reasons_are_text():
    assert Kept.UNUSED == "the forward pass does not use it"
    assert enters("a product") == "it enters a product, for which the vocabulary has no node type"
    assert len(set(Kept)) == len(Kept) == 11
    assert set(Kept) - DELIBERATE == {Kept.SCRIPTED, Kept.LEFT_OUT, Kept.UNUSED, Kept.UNREACHED}


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


def test_a_rule_may_leave_parameters_as_they_are():
    register_parameter(Kept.LAYER_SCALE)(lambda name, parameter: None)
    assert from_module(scaled(5), X).kept == {"p": Kept.LAYER_SCALE}


def test_a_rule_is_for_its_reason_alone():
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


def test_a_parameter_that_is_predicted_elsewhere_is_left_to_that():
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
def test_an_answer_that_fits_nothing_is_an_error(answer, message):
    register_parameter(Kept.LAYER_SCALE)(lambda name, parameter: answer)
    with pytest.raises(ValueError, match=message):
        from_module(scaled(5), X)


@pytest.mark.parametrize("reason", [Kept.UNUSED, "it is odd"])
def test_only_what_is_kept_by_choice_can_have_a_rule(reason):
    with pytest.raises(ValueError, match=r"expected one of Kept.LAYER_SCALE, .*, got"):
        register_parameter(reason)
