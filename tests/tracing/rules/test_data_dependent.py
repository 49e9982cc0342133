"""Choices that depend on the values of activations."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ghn_pyg import TracingError, from_module
from ghn_pyg.tracing.kept import Kept
from ghn_pyg.tracing.rules import data_dependent as rules_choices
from ghn_pyg.tracing.tracer import RULES, Tracer
from ghn_pyg.tracing.values import Value
from tests.tracing.helpers import kinds, network, shapes, sources, traced, weight

X = torch.rand(2, 3, 5)
BOXES = torch.tensor([[0.0, 0.0, 2.0, 3.0], [5.0, 5.0, 7.0, 11.0], [0.0, 7.0, 3.0, 13.0]])

# Of elements that are all chosen, as many as a trace assumes.
CASES = [
    (torch.nonzero, (X + 1,), {}),
    (torch.nonzero, (X + 1,), {"as_tuple": True}),
    (Tensor.nonzero, (X + 1,), {}),
    (torch.argwhere, (X + 1,), {}),
    (Tensor.argwhere, (X + 1,), {}),
    (torch.where, (X > -1,), {}),
    (torch.where, (X > -1, X, 0.0), {}),
    (Tensor.where, (X, X > -1, 0.0), {}),
    (torch.masked_select, (X, X[0] > -1), {}),
    (Tensor.masked_select, (X, X > -1), {}),
    (Tensor.masked_select, (X, torch.tensor([True, False, True, True, False])), {}),
    (Tensor.__getitem__, (X, X > -1), {}),
    (Tensor.__getitem__, (X, X[:, :, 0] > -1), {}),
    (Tensor.__getitem__, (X, (slice(None), X[0, :, 0] > -1)), {}),
    (torchvision.ops.nms, (BOXES, torch.rand(3), 0.5), {}),
    (Tensor.unbind, (X,), {}),
    (Tensor.unbind, ((X + 1).nonzero(), 1), {}),
    (torch.unbind, (X, 1), {}),
    (Tensor.__bool__, ((X > -1).any(),), {}),
    (Tensor.is_nonzero, ((X > -1).all(),), {}),
    (torch.is_nonzero, (X.sum(),), {}),
    (Tensor.item, ((X > -1).any(),), {}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CASES)
def test_all_elements_are_chosen(function, args, kwargs):
    assert traced(function, args, kwargs)[1] == shapes(function(*args, **kwargs))


def test_every_rule_has_a_case():
    called = {function for function, *_ in CASES} | {"torchvision.nms"}
    assert {function for function, rule in RULES.items() if rule.__module__ == rules_choices.__name__} <= called


def test_none_are_chosen_in_a_second_try():
    tracer = Tracer(chooses=False)
    mask = tracer.emit((3, 5), torch.bool, Value((0,)))
    with tracer:
        assert mask.nonzero().shape == (0, 2)
        assert torch.where(mask)[1].shape == (0,)
        assert torch.ones(3, 5)[mask].shape == (0,)
    assert tracer.chose


def test_what_is_chosen_leads_on():
    def forward(self, x):
        hidden = self.a(x)
        chosen = hidden[self.gate(x)[..., 0] > 0]
        return self.b(chosen)

    graph = from_module(network(forward, a=nn.Linear(5, 5), gate=nn.Linear(5, 1, bias=False), b=nn.Linear(5, 7)), X)
    assert kinds(graph) == ["input", "conv", "bias", "conv", "conv", "bias"]
    assert sources(graph)["b.weight"] == ["a.bias", "gate.weight"]


def test_what_looks_at_the_chosen_is_traced_without_any():
    def forward(self, x):
        hidden = self.a(x)
        rows = [hidden[0, int(place)] for place in torch.where(hidden[0, :, 0] > 0)[0]]
        return self.b(torch.stack(rows) if rows else hidden.new_empty(0, 5))

    graph = from_module(network(forward, a=nn.Linear(5, 5), b=nn.Linear(5, 7)), X)
    assert graph.kept == {}
    with pytest.raises(TracingError, match="depends on the values of tensors"):
        from_module(network(lambda self, x: self.a(x[: int(x.nonzero()[0, 0] + x.sum())]), a=nn.Linear(5, 5)), X)


def linears(names):
    return {name: nn.Linear(5, 5, bias=False) for name in names}


ASKED = {
    "any": lambda chosen: chosen.any(),
    "item": lambda chosen: chosen.any().item(),
    "count": lambda chosen: chosen.sum() > 0,
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_experts_that_get_a_token_are_seen(asked):
    def forward(self, x):
        expert, out = self.gate(x).argmax(-1), torch.zeros_like(x)
        for number, layer in enumerate(self.experts):
            chosen = expert == number
            if asked(chosen):
                out[chosen] = layer(x[chosen])
        return self.head(out)

    experts = nn.ModuleList(nn.Linear(5, 5, bias=False) for _ in range(3))
    graph = from_module(network(forward, experts=experts, **linears(("gate", "head"))), X)
    assert graph.kept == {}
    assert {f"experts.{number}.weight" for number in range(3)} <= set(graph.node_names)


def test_a_loop_over_the_experts_that_get_a_token():
    def forward(self, x):
        expert, out = F.one_hot(self.gate(x).argmax(-1), 3).permute(2, 0, 1), torch.zeros_like(x)
        for number in (expert.sum((1, 2)) > 0).nonzero():
            row, column = torch.where(expert[number].squeeze(0))
            out.index_put_((row, column), self.experts[f"of_{number[0]}"](x[row, column]), accumulate=True)
        return self.head(out)

    experts = nn.ModuleDict({f"of_{number}": nn.Linear(5, 5, bias=False) for number in range(3)})
    graph = from_module(network(forward, experts=experts, gate=nn.Linear(5, 3, bias=False), **linears(("head",))), X)
    assert graph.kept == {}
    assert set(sources(graph)["experts.of_2.weight"]) == {"input", "gate.weight"}


def test_the_branch_that_is_not_taken_may_be_by_other_values():
    def forward(self, x):
        return self.a(x) if x.sum() > 0 else self.b(x)

    graph = from_module(network(forward, **linears("abc")), X)
    assert graph.node_names == ["input", "a.weight"]
    assert graph.kept == dict.fromkeys(("b.weight", "c.weight"), Kept.UNREACHED)


@pytest.mark.parametrize("mask", [torch.ones(2, 3), torch.ones(2, 3).long()])
def test_a_mask_may_be_one_of_floating_point_numbers(mask):
    def forward(self, x, mask):
        bias = None if mask.all() else (1 - mask[:, None]) * -1e9
        return self.b(F.scaled_dot_product_attention(*[self.a(x)] * 3, attn_mask=bias))

    graph = from_module(network(forward, **linears("ab")), (X, mask))
    assert kinds(graph) == ["input", "conv", "msa", "conv"]


def test_a_condition_of_a_parameter():
    graph = from_module(network(lambda self, x: self.a(x) if self.w > 0 else x, w=weight(1), **linears("a")), X)
    assert graph.node_names == ["input", "a.weight"]


def test_checks_that_raise_are_passed_in_a_second_try():
    def forward(self, x):
        x = self.a(x)
        if (x < 0).any():
            raise ValueError("expected positive numbers")
        return self.b(x)

    assert from_module(network(forward, **linears("ab")), X).node_names == ["input", "a.weight", "b.weight"]


def test_loops_that_end_at_a_condition():
    def forward(self, x):
        for layer in (self.a, self.b, self.c):
            x = layer(x)
            if (x > 0).all():
                break
        while not (x > 0).all():
            x = layer(x)
        return x

    graph = from_module(network(forward, **linears("abc")), X)
    assert graph.node_names == ["input", "a.weight"]
    assert set(graph.kept.values()) == {Kept.UNREACHED}


def test_a_loop_that_never_ends_is_an_error():
    def forward(self, x):
        while x.sum() > 0:
            x = self.a(x)
        return x

    with pytest.raises(TracingError, match=r"a loop waits for a value.*It depends on the values of tensors"):
        from_module(network(forward, **linears("a")), X)


def test_a_condition_is_a_single_value():
    with pytest.raises(TracingError, match=r"a condition takes a single value, got a tensor of shape \(2, 3, 5\)"):
        from_module(network(lambda self, x: self.a(x) if x > 0 else x, **linears("a")), X)


def test_a_single_random_number_leaves_no_layer_out_that_mostly_runs():
    def forward(self, x):
        for layer in (self.a, self.b, self.c):
            if not (self.training and torch.rand([]) < 0.1):
                x = layer(x)
        return self.d(x) if self.training else x

    graph = from_module(network(forward, **linears("abcd")), X)
    assert graph.node_names == ["input", "a.weight", "b.weight", "c.weight", "d.weight"]


def detector(name):
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, weights_backbone=None)


@pytest.mark.parametrize(
    ("name", "convolutions", "norms"),
    [
        ("fasterrcnn_resnet50_fpn", 80, 53),
        ("maskrcnn_resnet50_fpn", 86, 53),
        ("keypointrcnn_resnet50_fpn", 89, 53),
        ("ssdlite320_mobilenet_v3_large", 67, 70),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_detectors_are_traced_whole(name, convolutions, norms):
    graph = from_module(detector(name), ([torch.rand(3, 64, 64)],))
    assert graph.kept == {}
    assert (kinds(graph).count("conv"), kinds(graph).count("bn")) == (convolutions, norms)


def test_a_loop_that_waits_for_a_random_number_is_an_error():
    def forward(self, x):
        while torch.rand(1) < 0.8:
            x = self.a(x)
        return x

    with pytest.raises(TracingError, match="a loop waits for a value"):
        from_module(network(forward, a=nn.Linear(5, 5)), torch.zeros(1, 5))
