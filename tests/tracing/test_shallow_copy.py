import functools
import types

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import nn

from ghn_pyg import from_module
from tests.tracing.helpers import assert_unchanged, network, snapshot, sources

X = torch.rand(2, 5)
LAYER = ["input", "a.weight", "a.bias"]


def names(model, x=X):
    """The nodes of a network that a trace leaves alone."""
    before = snapshot(model)
    graph = from_module(model, x)
    assert_unchanged(model, before)
    return graph.node_names


# --- how a network may refer to its layers ---------------------------------------------------------------------------


class Holder:
    """An object that is no module and calls one."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer(x)


REFERENCES = {
    "a list": lambda self: {"run": [self.a], "call": lambda self, x: self.run[0](x)},
    "a dictionary": lambda self: {"run": {"a": self.a}, "call": lambda self, x: self.run["a"](x)},
    "a tuple in a list": lambda self: {"run": [(self.a,)], "call": lambda self, x: self.run[0][0](x)},
    "a bound method": lambda self: {"run": self.a.forward, "call": lambda self, x: self.run(x)},
    "a partial": lambda self: {"run": functools.partial(self.a), "call": lambda self, x: self.run(x)},
    "a closure": lambda self: {"run": lambda x: self.a(x), "call": lambda self, x: self.run(x)},
    "an object": lambda self: {"run": Holder(self.a), "call": lambda self, x: self.run(x)},
    "itself in a list": lambda self: {"run": [self], "call": lambda self, x: self.run[0].a(x)},
    "its parameters": lambda self: {"run": None, "call": lambda self, x: F.linear(x, *self.a.parameters())},
    "parameters by name": lambda self: {
        "run": None,
        "call": lambda self, x: F.linear(x, self.get_parameter("a.weight"), dict(self.named_parameters())["a.bias"]),
    },
    "its path": lambda self: {"run": None, "call": lambda self, x: self.get_submodule("a")(x)},
    "children": lambda self: {"run": None, "call": lambda self, x: next(self.children())(x)},
    "forward": lambda self: {"run": None, "call": lambda self, x: self.a.forward(x)},
    "the class's forward": lambda self: {"run": None, "call": lambda self, x: nn.Linear.forward(self.a, x)},
}


@pytest.mark.parametrize("refer", REFERENCES.values(), ids=REFERENCES)
def test_layers_are_traced_behind_any_reference(refer):
    model = network(lambda self, x: self.call(self, x), a=nn.Linear(5, 7))
    for name, value in refer(model).items():
        setattr(model, name, value)
    assert names(model) == LAYER


def test_a_layer_in_a_list_alone_has_no_parameters_of_the_network():
    model = network(lambda self, x: self.hidden[0](self.a(x)), a=nn.Linear(5, 7), hidden=[nn.Linear(7, 2)])
    assert names(model) == LAYER


def test_a_list_that_two_modules_share():
    class Store(nn.Module):
        def __init__(self, seen):
            super().__init__()
            self.seen = seen

        def forward(self, x):
            self.seen.append(x)

    def forward(self, x):
        self.store(self.a(x))
        return self.b(self.seen[-1])

    seen = []
    model = network(forward, a=nn.Linear(5, 7), b=nn.Linear(7, 2), store=Store(seen), seen=seen)
    assert names(model) == [*LAYER, "b.weight", "b.bias"]
    assert seen == []


# --- how a module may be made ----------------------------------------------------------------------------------------


class Subclass(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


class OtherCall(nn.Linear):
    def __call__(self, x, scale=2):
        return self.forward(x) * scale


class Alias(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 7)

    def __getattr__(self, name):
        return self.layer if name == "alias" else super().__getattr__(name)

    def forward(self, x):
        return self.alias(x)


class Slots(nn.Module):
    __slots__ = ("factor",)

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 7)
        self.factor = 3

    def forward(self, x):
        return self.layer(x) * self.factor


class Switch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 7)
        self.forward = self.fast

    def fast(self, x):
        return self.layer(x)


@pytest.mark.parametrize("make", [Alias, Slots, Switch])
def test_modules_with_special_attributes(make):
    assert names(make()) == ["input", "layer.weight", "layer.bias"]


@pytest.mark.parametrize("make", [Subclass, OtherCall])
def test_subclasses_of_layers(make):
    assert names(make(5, 7)) == ["input", "weight", "bias"]


PATCHES = {
    "function": lambda layer: lambda x: F.linear(x, layer.weight, layer.bias),
    "method": lambda layer: types.MethodType(lambda self, x: F.linear(x, self.weight, self.bias), layer),
    "partial": lambda layer: functools.partial(nn.Linear.forward, layer),
}


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_a_forward_pass_that_was_replaced(patch):
    model = network(lambda self, x: self.a(x), a=nn.Linear(5, 7))
    model.a.forward = patch(model.a)
    assert names(model) == LAYER


def test_parameters_in_lists_and_dictionaries():
    model = network(
        lambda self, x: x @ self.several[0] @ self.several[1] @ self.named["last"],
        several=nn.ParameterList([torch.rand(5, 7), torch.rand(7, 3)]),
        named=nn.ParameterDict({"last": torch.rand(3, 2)}),
    )
    assert names(model) == ["input", "several.0", "several.1", "named.last"]


# --- hooks and parametrizations --------------------------------------------------------------------------------------


def test_hooks_run():
    model = network(lambda self, x: self.b(self.a(x)), a=nn.Linear(5, 7), b=nn.Linear(3, 2))
    model.a.register_forward_hook(lambda module, inputs, output: output[:, :3])
    model.b.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    assert names(model) == [*LAYER, "b.weight", "b.bias"]


def test_hooks_that_store_on_their_module():
    def forward(self, x):
        self.a(x)
        return self.b(self.a.seen)

    model = network(forward, a=nn.Linear(5, 7), b=nn.Linear(7, 2))
    model.a.register_forward_hook(lambda module, inputs, output: setattr(module, "seen", output))
    assert names(model) == [*LAYER, "b.weight", "b.bias"]


def test_a_hook_that_removes_itself():
    model = network(lambda self, x: self.a(x), a=nn.Linear(5, 7))
    calls = []

    def hook(module, inputs, output):
        calls.append(1)
        handle.remove()

    handle = model.a.register_forward_hook(hook)
    from_module(model, X)
    calls.clear()
    model(X)
    assert calls == [1]


PARAMETRIZATIONS = {
    "weight_norm": (nn.utils.parametrizations.weight_norm, "a.parametrizations.weight.original1"),
    "spectral_norm": (nn.utils.parametrizations.spectral_norm, "a.parametrizations.weight.original"),
    "orthogonal": (nn.utils.parametrizations.orthogonal, "a.parametrizations.weight.original"),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("parametrize", "weight"), PARAMETRIZATIONS.values(), ids=PARAMETRIZATIONS)
def test_parametrizations(parametrize, weight, training):
    model = network(lambda self, x: self.b(self.a(x)), a=parametrize(nn.Linear(5, 7)), b=nn.Linear(7, 2)).train(
        training
    )
    assert names(model) == ["input", weight, "a.bias", "b.weight", "b.bias"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("parametrize", "weight"),
    [
        (nn.utils.weight_norm, "a.weight_v"),
        (nn.utils.spectral_norm, "a.weight_orig"),
        (lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.5), "a.weight_orig"),
    ],
    ids=["weight_norm", "spectral_norm", "prune"],
)
def test_parametrizations_by_hooks(parametrize, weight):
    model = network(lambda self, x: self.b(self.a(x)), a=parametrize(nn.Linear(5, 7)), b=nn.Linear(7, 2))
    assert names(model) == ["input", weight, "a.bias", "b.weight", "b.bias"]


# --- names -----------------------------------------------------------------------------------------------------------


def test_operations_are_named_after_their_module_and_counted():
    def forward(self, x):
        x = x + self.a(x)
        x = x + self.a(x)
        return self.block(x.unsqueeze(1))

    class Block(nn.Module):
        def forward(self, x):
            return F.max_pool1d(F.max_pool1d(x, 2, 1), 2, 1) + F.max_pool1d(x, 3, 1)

    model = network(forward, a=nn.Linear(5, 5, bias=False), block=Block())
    assert from_module(model, X).node_names == [
        "input", "a.weight", "sum", "a:conv", "sum#2", "block:max_pool", "block:max_pool#2", "block:max_pool#3",
        "block:sum",
    ]  # fmt: skip


class Observed(nn.Module):
    """A network whose hooks write to it, by itself and through its bound method."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.features, self.calls, self.last = {}, 0, None
        self.register_buffer("mean", torch.zeros(5))
        self.a.register_forward_hook(self.save)
        self.b.register_forward_pre_hook(lambda layer, args: setattr(self, "last", args[0].detach()))
        self.b.register_forward_hook(functools.partial(Observed.count, self))

    def save(self, layer, args, out):
        self.features["a"] = out
        self.mean.mul_(0.9).add_(out.detach().mean(0))

    def count(self, layer, args, out):
        self.calls += 1

    def forward(self, x):
        return self.c(self.b(self.a(x)) + self.features["a"])


def test_hooks_act_on_the_copy():
    model = Observed()
    graph = from_module(model, torch.rand(2, 5))
    assert sources(graph)["sum"] == ["a.bias", "b.bias"]
    assert (model.features, model.calls, model.last) == ({}, 0, None)
    assert not model.mean.any()


def test_variables_of_hooks_are_restored():
    count, seen = 0, []
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))

    def hook(layer, args, out):
        nonlocal count
        count += 1
        seen.append(out)
        model.seen = out

    model[0].register_forward_hook(hook)
    assert from_module(model, torch.rand(2, 5)).kept == {}
    assert (count, seen, hasattr(model, "seen")) == (0, [], False)


def test_a_function_that_closes_over_the_network_calls_the_copy():
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    model.both = lambda x: model[1](model[0](x))
    model.forward = lambda x: model.both(x)
    graph = from_module(model, torch.rand(2, 5))
    assert graph.node_names == ["input", "0.weight", "0.bias", "1.weight"]
    assert model[1].num_batches_tracked == 0
