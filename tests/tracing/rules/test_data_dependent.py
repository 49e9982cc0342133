"""Choices that depend on the values of activations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from ghn_pyg import TracingError, from_module
from ghn_pyg.tracing.assumptions import Assumptions
from ghn_pyg.tracing.kept_reasons import Kept, enters
from ghn_pyg.tracing.tracer import Tracer
from ghn_pyg.tracing.values import Value
from tests.tracing.helpers import kinds, sources
from tests.tracing.rules.helpers import graph_of, linear

X = torch.rand(2, 3, 5)


def test_none_are_chosen_in_a_second_try():
    tracer = Tracer(Assumptions(all_chosen=False))
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

    graph = graph_of(forward, X, a=nn.Linear(5, 5), gate=linear(5, 1), b=nn.Linear(5, 7))
    assert kinds(graph) == ["input", "conv", "bias", "conv", "conv", "bias"]
    assert sources(graph)["b.weight"] == ["a.bias", "gate.weight"]


def test_what_looks_at_the_chosen_is_traced_without_any():
    def forward(self, x):
        hidden = self.a(x)
        rows = [hidden[0, int(place)] for place in torch.where(hidden[0, :, 0] > 0)[0]]
        return self.b(torch.stack(rows) if rows else hidden.new_empty(0, 5))

    graph = graph_of(forward, X, a=nn.Linear(5, 5), b=nn.Linear(5, 7))
    assert graph.kept == {}


def linears(names):
    return {name: linear() for name in names}


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

    experts = nn.ModuleList(linear() for _ in range(3))
    graph = graph_of(forward, X, experts=experts, **linears(("gate", "head")))
    assert graph.kept == {}
    assert {f"experts.{number}.weight" for number in range(3)} <= set(graph.node_names)


def test_a_loop_over_the_experts_that_get_a_token():
    def forward(self, x):
        expert, out = F.one_hot(self.gate(x).argmax(-1), 3).permute(2, 0, 1), torch.zeros_like(x)
        for number in (expert.sum((1, 2)) > 0).nonzero():
            row, column = torch.where(expert[number].squeeze(0))
            out.index_put_((row, column), self.experts[f"of_{number[0]}"](x[row, column]), accumulate=True)
        return self.head(out)

    experts = nn.ModuleDict({f"of_{number}": linear() for number in range(3)})
    graph = graph_of(forward, X, experts=experts, gate=linear(5, 3), **linears(("head",)))
    assert graph.kept == {}
    assert set(sources(graph)["experts.of_2.weight"]) == {"input", "gate.weight"}


@pytest.mark.parametrize("mask", [torch.ones(2, 3), torch.ones(2, 3).long()])
def test_a_mask_may_be_one_of_floating_point_numbers(mask):
    def forward(self, x, mask):
        bias = None if mask.all() else (1 - mask[:, None]) * -1e9
        return self.b(F.scaled_dot_product_attention(*[self.a(x)] * 3, attn_mask=bias))

    graph = graph_of(forward, (X, mask), **linears("ab"))
    assert kinds(graph) == ["input", "conv", "msa", "conv"]


def breaks(self, x):
    for layer in (self.a, self.b, self.c):
        x = layer(x)
        if (x > 0).all():
            break
    return x


def raises(self, x):
    x = self.a(x)
    if (x < 0).any():
        raise ValueError("expected positive numbers")
    return self.c(self.b(x))


def drops_layers(self, x):
    for layer in (self.a, self.b):
        if not (self.training and torch.rand([]) < 0.1):
            x = layer(x)
    return self.c(x) if self.training else x


# Forward pass, and the layers that the graph has.
CONDITIONS = {
    "of activations": (lambda self, x: self.a(x) if x.sum() > 0 else self.b(x), "a"),
    "of a parameter": (lambda self, x: self.a(x) if self.c.weight.sum() > 0 else self.b(x), "a"),
    "at the end of a loop": (breaks, "abc"),
    "that raises an error": (raises, "abc"),
    "of a random number": (drops_layers, "abc"),
}


@pytest.mark.parametrize(("forward", "layers"), CONDITIONS.values(), ids=CONDITIONS)
def test_conditions_take_the_branch_that_reaches_most_layers(forward, layers):
    graph = graph_of(forward, X, **linears("abc"))
    assert graph.node_names == ["input", *(f"{name}.weight" for name in layers)]
    assert set(graph.kept) == {f"{name}.weight" for name in "abc" if name not in layers}
    assert set(graph.kept.values()) <= {Kept.UNREACHED, enters("a computation of parameters alone")}


def routed_by_numpy(self, x):
    numbers = self.a(x).argmax(-1).numpy()
    for number in np.unique(numbers):
        x = self.layers[number](x)
    return x


# Forward pass in which values leave the tensors before the last layer.
READS = {
    "a list": lambda self, x: self.b(self.a(x)[x.sum((1, 2)).argsort().tolist()]),
    "a sorted list": lambda self, x: self.b(self.a(x)[:, sorted(range(3), key=x.sum((0, 2)).tolist().__getitem__)]),
    "an array": lambda self, x: self.b(self.a(x)[torch.from_numpy(x.detach().cpu().numpy().sum((1, 2)).argsort())]),
    "any array": lambda self, x: self.b(self.a(x) * torch.from_numpy(np.asarray(x) / np.asarray(x).max())),
    "a truth value in a list": lambda self, x: self.b(self.a(x)) if (x > 0).tolist()[0][0][1] else x,
    "an index": lambda self, x: self.b(self.a(x)[:, int(x[0, 0].argmax())]),
}


@pytest.mark.parametrize("forward", READS.values(), ids=READS)
def test_values_that_are_read_do_not_end_a_graph(forward):
    with pytest.warns(UserWarning, match="numbers stand for them"):
        graph = graph_of(forward, X, **linears("ab"))
    assert graph.node_names[:3] == ["input", "a.weight", "b.weight"]
    assert sources(graph)["b.weight"] == ["a.weight"]
    assert graph.kept == {}


def test_experts_that_are_chosen_outside_of_tensors():
    with pytest.warns(UserWarning, match="numbers stand for them"):
        graph = graph_of(routed_by_numpy, X, **linears("a"), layers=nn.ModuleList(linear() for _ in range(5)))
    assert {"layers.0.weight", "layers.1.weight", "layers.2.weight"} < set(graph.node_names)
    assert graph.kept == {"layers.3.weight": Kept.UNREACHED, "layers.4.weight": Kept.UNREACHED}


def test_a_number_may_be_printed():
    def forward(self, x):
        return self.a(x), f"{x.mean():.3f} {x.argmax():d} {x[0]}"

    assert graph_of(forward, X, **linears("a")).kept == {}


ERRORS = {
    "several values": (lambda self, x: self.a(x) if x > 0 else x, r"a single value, got a tensor of shape \(2, 3, 5\)"),
    "a size": (lambda self, x: self.a(x.view(int(x.argmax()) + 7)), "depends on the values of tensors"),
}


@pytest.mark.parametrize(("forward", "message"), ERRORS.values(), ids=ERRORS)
def test_what_needs_values_is_an_error(forward, message):
    with pytest.raises(TracingError, match=message):
        graph_of(forward, X, **linears("a"))


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
