"""Global averages, and norms that are written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghn_pyg import GHN, GHNConfig, from_module
from ghn_pyg.tracing.rules import means as rules_means
from ghn_pyg.tracing.rules.means import is_spatial
from tests.tracing.helpers import (
    assert_refused,
    assert_same_shapes,
    calls,
    kinds,
    network,
    rules_without_case,
    sources,
    weight,
)

X = torch.rand(2, 3, 5, 7)
MAP = torch.rand(2, 3, 17, 13)
TOKENS = torch.rand(2, 7, 5)

MEANS = [
    (mean, (X, *dims), {"keepdim": keepdim})
    for mean in (torch.mean, Tensor.mean)
    for dims in ((1,), (-1,), ((2, 3),), ((-1, -2),), ([0, 2],), ((3, 1, 2),))
    for keepdim in (False, True)
]
OTHER_MEANS = [
    (torch.mean, (X,), {}),
    (Tensor.mean, (X,), {}),
    (Tensor.mean, (X, ()), {}),
    (Tensor.mean, (X, None), {"keepdim": True}),
    (Tensor.mean, (X, (2, 3), True), {}),
    (Tensor.mean, (X,), {"dim": (2, 3)}),
    (Tensor.mean, (X,), {"dim": -1, "dtype": torch.float64}),
    (Tensor.mean, (X,), {"axis": 1}),
    (torch.mean, (X,), {"axis": (2, 3), "keepdims": True}),
    (torch.mean, (X[0, 0, 0, 0],), {}),
]
SPREADS = [
    *((getattr(space, name), (X, (1, 3)), {}) for space in (torch, Tensor) for name in ("var", "std")),
    *((function, (X,), {}) for function in (torch.var, Tensor.std, torch.norm, Tensor.norm)),
    (torch.var, (X, -1), {"correction": 0, "keepdim": True}),
    (Tensor.var, (X, 2), {"unbiased": False}),
    (Tensor.std, (X, False), {}),
    (Tensor.std, (X,), {"dim": (0, 2, 3)}),
    (torch.var_mean, (X, (2, 3)), {"keepdim": True}),
    (torch.std_mean, (X, 1), {}),
    (torch.norm, (X, 2, -1), {}),
    (Tensor.norm, (X,), {"dim": 1, "keepdim": True}),
    (Tensor.norm, (X, 2, (2, 3)), {}),
    (torch.linalg.norm, (X,), {"dim": -1, "keepdim": True}),
    (torch.linalg.vector_norm, (X, 2, (2, 3)), {}),
    (F.normalize, (X,), {"dim": -1}),
    (F.normalize, (X, 1.0, 2), {}),
]
CASES = [*MEANS, *OTHER_MEANS, *SPREADS]
REFUSED = [
    (Tensor.mean, (X, 4), {}),
    (Tensor.mean, (X, (1, 1)), {}),
    (Tensor.var, (X, 4), {}),
    (F.normalize, (X,), {"dim": 4}),
]


@calls(CASES)
def test_the_shape_is_what_pytorch_computes(function, args, kwargs):
    assert_same_shapes(function, args, kwargs)


def test_every_rule_has_a_case():
    assert rules_without_case([rules_means], CASES) == set()


@calls(REFUSED)
def test_what_pytorch_refuses_fails(function, args, kwargs):
    assert_refused(function, args, kwargs)


@pytest.mark.parametrize(
    ("rank", "dims", "expected"),
    [
        (4, [2, 3], True),
        (4, [1, 2], True),
        (5, [2, 3, 4], True),
        (5, [1, 2, 3], True),
        (3, [1], True),
        (4, [1], False),
        (4, [3], False),
        (4, [1, 2, 3], False),
        (4, [0, 2, 3], False),
        (3, [2], False),
        (2, [1], False),
    ],
)
def test_is_spatial(rank, dims, expected):
    assert is_spatial(rank, dims) is expected


# --- global averages -------------------------------------------------------------------------------------------------


def averaged(mean, layer, x):
    features = mean(layer(x)).flatten(1).shape[1]
    net = network(lambda self, x: self.b(mean(self.a(x)).flatten(1)), a=layer, b=nn.Linear(features, 2, bias=False))
    return from_module(net, x)


AVERAGES = {
    "places": lambda x: x.mean((2, 3)),
    "by keyword": lambda x: x.mean(dim=[-1, -2], keepdim=True),
    "function": lambda x: torch.mean(input=x, dim=(2, 3)),
    "channels last": lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
    "tokens": lambda x: x.flatten(2).mT.mean(1),
    "flattened": lambda x: x.flatten(2).mean(-1),
    "flattened, kept": lambda x: x.flatten(2).mean(2, keepdim=True),
    "view": lambda x: x.view(2, 5, -1).mean(2),
    "reshape": lambda x: torch.reshape(x, (2, 5, -1)).relu().mean(-1),
    "one after the other": lambda x: x.mean(3).mean(2),
    "from the left": lambda x: x.mean(2).mean(2),
    "one after the other, kept": lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True),
    "from the left, kept": lambda x: x.mean(2, True).mean(3, True),
}


@pytest.mark.parametrize("mean", AVERAGES.values(), ids=AVERAGES)
def test_a_mean_over_all_places_is_a_global_average(mean):
    graph = averaged(mean, nn.Conv2d(3, 5, 1, bias=False), MAP)
    assert kinds(graph) == ["input", "conv", "glob_avg", "conv"]
    assert graph.edge_index.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert graph.node_shape[2].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("layer", "shape", "mean"),
    [
        (nn.Conv1d(3, 5, 1, bias=False), (2, 3, 11), lambda x: x.mean(-1)),
        (nn.Conv1d(3, 5, 1, bias=False), (2, 3, 11), lambda x: x.relu().mean(2, keepdim=True)),
        (nn.Linear(3, 5, bias=False), (2, 11, 3), lambda x: x.mean(1)),
        (nn.Linear(3, 5, bias=False), (2, 11, 3), lambda x: x.mT.mean(2)),
        (nn.Conv3d(3, 5, 1, bias=False), (2, 3, 5, 7, 11), lambda x: x.mean((2, 3, 4))),
        (nn.Conv3d(3, 5, 1, bias=False), (2, 3, 5, 7, 11), lambda x: x.flatten(2).mean(2)),
    ],
)
def test_a_mean_of_a_sequence_or_a_volume_is_a_global_average(layer, shape, mean):
    assert kinds(averaged(mean, layer, torch.rand(shape))) == ["input", "conv", "glob_avg", "conv"]


OTHER = {
    "channels": lambda x: x.mean(1),
    "samples": lambda x: x.mean(0, keepdim=True),
    "all": lambda x: x.mean().expand(2, 1),
    "rows": lambda x: x.mean(3),
    "centred": lambda x: x - x.mean((2, 3), keepdim=True),
    "channels of tokens": lambda x: x.flatten(2).mT.mean(-1),
    "channels of a flat map": lambda x: x.flatten(2).mean(1),
    "variance": lambda x: x.var((2, 3)),
}


@pytest.mark.parametrize("mean", OTHER.values(), ids=OTHER)
def test_other_means_are_folded(mean):
    assert kinds(averaged(mean, nn.Conv2d(3, 5, 1, bias=False), MAP)) == ["input", "conv", "conv"]


def test_a_mean_of_a_constant_or_of_a_weight_is_no_node():
    def forward(self, x):
        centred = self.a.weight - self.a.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, centred) * torch.ones(1, 5, 7, 7).mean((2, 3), keepdim=True)

    graph = from_module(network(forward, a=nn.Conv2d(3, 5, 1, bias=False)), torch.zeros(1, 3, 7, 7))
    assert kinds(graph) == ["input", "conv"]


# --- norms -----------------------------------------------------------------------------------------------------------


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
    layer = layer or nn.Linear(5, 5, bias=False)
    members = {"a": layer, "c": nn.Linear(x.shape[-1], 3, bias=False), "g": weight(*shape), "b": weight(*shape)}
    return from_module(network(lambda self, x: self.c(norm(self, self.a(x))), **members), x)


@pytest.mark.parametrize("norm", (GAINS | GAINS_AND_BIASES).values(), ids=GAINS | GAINS_AND_BIASES)
def test_the_gain_of_a_norm_that_is_written_out_is_a_norm(norm):
    graph = normed(norm)
    assert kinds(graph) == ["input", "conv", "ln", "conv"]
    assert graph.edge_index.tolist() == [[0, 1, 2], [1, 2, 3]]
    names = ["g", "b"] if norm in GAINS_AND_BIASES.values() else ["g"]
    assert [(spec.name, spec.shape) for spec in graph.params[2]] == [(name, (5,)) for name in names]
    assert [spec.role for spec in graph.params[2]] == ["gain", "bias"][: len(names)]
    assert set(graph.kept) == {"g", "b"} - set(names)


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        (lambda self, x: standard(x, 1) * self.g + self.b, "ln"),
        (lambda self, x: rms(x, 1) * self.g + self.b, "ln"),
        (lambda self, x: rms(x, (1, 2, 3)) * self.g + self.b, "ln"),
        (lambda self, x: standard(x, (2, 3)) * self.g + self.b, "bn"),
        (lambda self, x: standard(x, (0, 2, 3)) * self.g + self.b, "bn"),
    ],
    ids=["channels first", "without mean", "all features", "each channel", "samples"],
)
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
}


@pytest.mark.parametrize("norm", NO_NORMS.values(), ids=NO_NORMS)
def test_other_products_are_no_norms(norm):
    graph = normed(norm)
    assert not {"ln", "bn", "cse", "glob_avg", "sum"} & set(kinds(graph))
    assert "g" in graph.kept


@pytest.mark.parametrize(
    "norm",
    [
        lambda self, x: rms(x) * (1 + self.g),
        lambda self, x: (1.0 + self.g) * rms(x),
        lambda self, x: rms(x) * (1 + self.g).view(1, 1, -1),
        lambda self, x: F.rms_norm(x, (5,), self.g + 1),
    ],
    ids=["behind", "before", "viewed", "fused"],
)
def test_a_gain_that_1_is_added_to_is_predicted_less_1(norm):
    graph, plain = normed(norm), normed(lambda self, x: rms(x) * self.g)
    assert kinds(graph) == kinds(plain) == ["input", "conv", "ln", "conv"]
    assert [(spec.name, spec.role, spec.added) for spec in graph.params[2]] == [("g", "gain", 1)]
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=3, num_classes=5, layers=1, heads=2))
    expected = ghn.predict(plain)["g"]
    assert 0 < expected.min() < expected.max() < 2
    assert torch.equal(ghn.predict(graph)["g"], expected - 1)


def test_a_single_number_is_no_gain():
    assert "g" in normed(lambda self, x: rms(x) * self.g, shape=(1,)).kept


def test_a_norm_after_a_layer_with_a_handler():
    graph = from_module(network(lambda self, x: rms(self.a(x)[0]) * self.g, a=nn.LSTM(5, 5), g=weight(5)), TOKENS)
    assert kinds(graph) == ["input", "conv", "conv", "bias", "bias", "ln"]
    assert sources(graph)["g"] == ["a.bias_hh_l0"]
