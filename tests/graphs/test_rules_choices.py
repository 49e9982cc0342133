"""Choices that depend on the values of activations."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from ghn_pyg import TracingError, from_module
from ghn_pyg.graphs import rules_choices
from ghn_pyg.graphs.tracer import RULES, Tracer, Value
from tests.graphs.tracing import kinds, network, sources, traced

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
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CASES)
def test_all_elements_are_chosen(function, args, kwargs):
    result = function(*args, **kwargs)
    found = [result] if isinstance(result, Tensor) else result
    assert traced(function, args, kwargs)[1] == [(tuple(tensor.shape), tensor.dtype) for tensor in found]


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
        rows = [hidden[0, int(place)] for place in (hidden[0, :, 0] > 0).nonzero()]
        return self.b(torch.stack(rows) if rows else hidden.new_empty(0, 5))

    graph = from_module(network(forward, a=nn.Linear(5, 5), b=nn.Linear(5, 7)), X)
    assert graph.kept == {}
    with pytest.raises(TracingError, match="depends on the values of tensors"):
        from_module(network(lambda self, x: self.a(x[: int(x.nonzero()[0, 0] + x.sum())]), a=nn.Linear(5, 5)), X)


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
