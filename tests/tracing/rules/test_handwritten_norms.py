"""Norms that networks write out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg.tracing.kept_reasons import Kept
from tests.tracing.helpers import kinds, sources, weight
from tests.tracing.rules.helpers import graph_of, linear, small_ghn

TOKENS = torch.rand(2, 7, 5)


def rms(x, dim=-1):
    return x * torch.rsqrt(x.square().mean(dim, keepdim=True) + 1e-6)


def standard(x, dim=-1):
    return (x - x.mean(dim, keepdim=True)) / (x.var(dim, keepdim=True, unbiased=False) + 1e-6).sqrt()


def by_moments(x):
    return x.square().mean(-1, keepdim=True) - x.mean(-1, keepdim=True).square()


def centred(x):
    return x - x.mean(-1, keepdim=True)


GAINS = {
    "root mean square": lambda self, x: rms(x) * self.g,
    "gain first": lambda self, x: self.g * rms(x),
    "of another type": lambda self, x: self.g * rms(x.double()).to(x.dtype),
    "x.pow(2)": lambda self, x: x * x.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt() * self.g,
    "a quotient": lambda self, x: x / ((x * x).mean(-1, keepdim=True) + 1e-6).sqrt() * self.g,
    "over the length": lambda self, x: x / x.norm(dim=-1, keepdim=True) * self.g,
    "over the length, by torch": lambda self, x: F.normalize(x, dim=-1) * 5**0.5 * self.g,
    "over the length, by torch.linalg": lambda self, x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self.g,
    "of all tokens": lambda self, x: rms(x, (1, 2)) * self.g,
    "in place": lambda self, x: rms(x).mul_(self.g),
}
GAINS_AND_BIASES = {
    "mean and variance": lambda self, x: standard(x) * self.g + self.b,
    "root of the mean square": lambda self, x: rms(centred(x)) * self.g + self.b,
    "gain before the division": lambda self, x: self.g * centred(x) / (x.std(-1, keepdim=True) + 1e-6) + self.b,
    "gain times the root": lambda self, x: centred(x) * (self.g * (x.var(-1, keepdim=True) + 1e-6).rsqrt()) + self.b,
    "moments": lambda self, x: centred(x) / (by_moments(x) + 1e-6).sqrt() * self.g + self.b,
    "var_mean": lambda self, x: (
        (lambda var, mean: (x - mean) * (var + 1e-6).rsqrt())(*torch.var_mean(x, -1, keepdim=True)) * self.g + self.b
    ),
    "addcmul": lambda self, x: torch.addcmul(self.b, standard(x), self.g),
}


def normed(norm, x=TOKENS, layer=None, shape=(5,)):
    members = {"a": layer or linear(), "c": linear(x.shape[-1], 3), "g": weight(*shape), "b": weight(*shape)}
    return graph_of(lambda self, x: self.c(norm(self, self.a(x))), x, **members)


@pytest.mark.parametrize("norm", (GAINS | GAINS_AND_BIASES).values(), ids=GAINS | GAINS_AND_BIASES)
def test_the_gain_of_a_norm_that_is_written_out_is_a_norm(norm):
    graph = normed(norm)
    assert kinds(graph) == ["input", "conv", "ln", "conv"]
    assert graph.edge_index.tolist() == [[0, 1, 2], [1, 2, 3]]
    names = ["g", "b"] if norm in GAINS_AND_BIASES.values() else ["g"]
    assert [(spec.name, spec.shape) for spec in graph.params[2]] == [(name, (5,)) for name in names]
    assert [spec.role for spec in graph.params[2]] == ["gain", "bias"][: len(names)]
    assert set(graph.kept) == {"g", "b"} - set(names)


OF_MAPS = {
    "channels first": (lambda self, x: standard(x, 1) * self.g + self.b, "ln"),
    "without mean": (lambda self, x: rms(x, 1) * self.g + self.b, "ln"),
    "all features": (lambda self, x: rms(x, (1, 2, 3)) * self.g + self.b, "ln"),
    "each channel": (lambda self, x: standard(x, (2, 3)) * self.g + self.b, "bn"),
    "samples": (lambda self, x: standard(x, (0, 2, 3)) * self.g + self.b, "bn"),
}


@pytest.mark.parametrize(("norm", "kind"), OF_MAPS.values(), ids=OF_MAPS)
def test_norms_of_maps_that_are_written_out(norm, kind):
    graph = normed(norm, torch.rand(2, 3, 11, 13), nn.Conv2d(3, 5, 1, bias=False), (5, 1, 1))
    assert kinds(graph) == ["input", "conv", kind, "conv"]
    assert graph.param_names[2] == ["g", "b"]
    assert graph.node_shape[2].tolist() == [5, 1, 1, 1]


def test_a_norm_that_is_written_out_and_shared_is_decoded_once():
    graph = normed(lambda self, x: standard(standard(x) * self.g + self.b) * self.g + self.b)
    assert kinds(graph) == ["input", "conv", "ln", "ln", "conv"]
    assert graph.param_names[2:4] == [["g", "b"], []]


NO_NORMS = {
    "no statistic": lambda self, x: x.relu() * self.g,
    "of another value": lambda self, x: x / self.a(x).std(-1, keepdim=True) * self.g,
    "an offset to 2": lambda self, x: rms(x) * (2 + self.g),
    "a difference from 1": lambda self, x: rms(x) * (1 - self.g),
    "a factor before": lambda self, x: rms(x * self.g),
    "of tokens": lambda self, x: rms(x, 1) * self.g,
    "a response norm": lambda self, x: (
        self.g * (x * (lambda n: n / n.mean(-1, keepdim=True))(x.norm(dim=1, keepdim=True)))
    ),
    "no gain": lambda self, x: standard(x),
    "of numbers": lambda self, x: (x - 0.5) / 0.25 * self.g,
    "of a constant for each element": lambda self, x: (x - torch.rand(7, 5)) / torch.rand(7, 5) * self.g,
    "a difference alone": lambda self, x: (x - torch.rand(5)) * self.g,
}


@pytest.mark.parametrize("norm", NO_NORMS.values(), ids=NO_NORMS)
def test_other_products_are_no_norms(norm):
    graph = normed(norm)
    assert not {"ln", "bn", "cse", "glob_avg", "sum"} & set(kinds(graph))
    assert "g" in graph.kept


PLUS_1 = {
    "behind": lambda self, x: rms(x) * (1 + self.g),
    "before": lambda self, x: (1.0 + self.g) * rms(x),
    "viewed": lambda self, x: rms(x) * (1 + self.g).view(1, 1, -1),
    "fused": lambda self, x: F.rms_norm(x, (5,), self.g + 1),
}


@pytest.mark.parametrize("norm", PLUS_1.values(), ids=PLUS_1)
def test_a_gain_that_1_is_added_to_is_predicted_less_1(norm):
    graph, plain = normed(norm), normed(lambda self, x: rms(x) * self.g)
    assert kinds(graph) == kinds(plain) == ["input", "conv", "ln", "conv"]
    assert [(spec.name, spec.role, spec.added) for spec in graph.params[2]] == [("g", "gain", 1)]
    torch.manual_seed(0)
    ghn = small_ghn()
    expected = ghn.predict(plain)["g"]
    assert 0 < expected.min() < expected.max() < 2
    assert torch.equal(ghn.predict(graph)["g"], expected - 1)


def test_a_single_number_is_no_gain():
    assert "g" in normed(lambda self, x: rms(x) * self.g, shape=(1,)).kept


def test_a_norm_after_a_layer_with_a_handler():
    graph = graph_of(lambda self, x: rms(self.a(x)[0]) * self.g, TOKENS, a=nn.LSTM(5, 5), g=weight(5))
    assert kinds(graph) == ["input", "conv", "bias", "conv", "bias", "sum", "ln"]
    assert sources(graph)["g"] == ["a:sum"]


MEAN = torch.rand(1, 5, 1, 1)
IN_FRONT = {
    "batch norm, before the division": (
        lambda self, x: self.g * (x - x.mean((0, 2, 3), keepdim=True))
        / torch.sqrt(x.var((0, 2, 3), keepdim=True) + 1e-5) + self.b,
        "bn",
    ),
    "batch norm": (lambda self, x: standard(x, (0, 2, 3)) * self.g + self.b, "bn"),
    "instance norm": (lambda self, x: standard(x, (2, 3)) * self.g + self.b, "bn"),
    "channels": (lambda self, x: standard(x, 1) * (1 + self.g) + self.b, "ln"),
    "filter response": (lambda self, x: rms(x, (2, 3)) * self.g + self.b, "bn"),
}  # fmt: skip


IN_FRONT |= {
    "running statistics": (lambda self, x: self.g * ((x - MEAN) / torch.sqrt(MEAN.square() + 1e-5)) + self.b, "bn"),
    "running statistics, gain first": (lambda self, x: self.g * (x - MEAN) / (MEAN.abs() + 1e-5) + self.b, "bn"),
    "running statistics, a root": (lambda self, x: (x - MEAN) * torch.rsqrt(MEAN.abs() + 1) * self.g + self.b, "bn"),
    "groups": (lambda self, x: standard(x.view(2, 5, 1, -1), -1).view(x.shape) * self.g + self.b, "ln"),
    "groups of three dimensions": (lambda self, x: standard(x.view(2, 1, -1)).view_as(x) * self.g + self.b, "ln"),
}


@pytest.mark.parametrize(("norm", "kind"), IN_FRONT.values(), ids=IN_FRONT)
@pytest.mark.parametrize("shape", [(5, 1, 1), (1, 5, 1, 1)], ids=str)
def test_a_gain_may_have_a_dimension_for_samples(norm, kind, shape):
    graph = normed(norm, torch.rand(2, 3, 11, 13), nn.Conv2d(3, 5, 1, bias=False), shape)
    assert kinds(graph) == ["input", "conv", kind, "conv"]
    assert [(spec.name, spec.shape) for spec in graph.params[2]] == [("g", shape), ("b", shape)]
    assert graph.node_shape[2].tolist() == [5, 1, 1, 1]
    prediction = small_ghn().predict(graph)
    for name in ("g", "b"):
        assert prediction[name].shape == shape
        assert prediction[name].unique().numel() == 3


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1, 5)], ids=str)
def test_a_gain_of_tokens_may_have_dimensions_in_front(shape):
    graph = normed(lambda self, x: standard(x) * (1 + self.g) + self.b, shape=shape)
    assert graph.param_names[2] == ["g", "b"]
    assert small_ghn().predict(graph)["g"].shape == shape


def unit(x):
    return F.normalize(x, dim=-1)


# Interpolations between two normalised values.
RATES = {
    "lerp": lambda self, x, y: torch.lerp(x, y, self.rate * 2),
    "lerp of a function": lambda self, x, y: x.lerp(y, self.rate.sigmoid()),
    "the rate last": lambda self, x, y: (1 - self.rate) * x + self.rate * y,
    "the rate first": lambda self, x, y: self.rate * y + (1 - self.rate) * x,
}


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_a_rate_between_normalised_values_is_no_gain(rate):
    def forward(self, x):
        x = unit(self.a(x))
        return self.c(unit(rate(self, x, unit(self.b(x)))))

    graph = graph_of(forward, torch.rand(2, 5), rate=weight(5), a=linear(), b=linear(), c=linear())
    assert graph.kept == {"rate": Kept.LAYER_SCALE}
    assert sources(graph)["c.weight"] == ["sum"]
