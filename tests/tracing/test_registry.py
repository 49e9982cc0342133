import pytest
import torch
from torch import nn

from ghn_pyg import from_module, register_layer
from ghn_pyg.tracing import registry as layers
from tests.tracing.helpers import assert_unchanged, kinds, network, snapshot, sources, weight

X = torch.rand(2, 3, 5)


@pytest.fixture(autouse=True)
def _registered_layers_are_forgotten(monkeypatch):
    monkeypatch.setattr(layers, "HANDLERS", dict(layers.HANDLERS))


class Scale(nn.Module):
    """A norm whose arithmetic alone is not known as one."""

    def __init__(self, channels):
        super().__init__()
        self.gain = weight(channels)
        self.shift = weight(channels)

    def forward(self, x):
        return x / x.abs().sum(-1, keepdim=True) * self.gain + self.shift


class Quiet(Scale):
    """A subclass."""


def around(layer):
    return nn.Sequential(nn.Linear(5, 7, bias=False), layer, nn.Linear(7, 2, bias=False))


def test_without_a_handler_only_its_functions_are_traced():
    graph = from_module(around(Scale(7)), X)
    assert graph.node_names == ["input", "0.weight", "2.weight"]
    assert sorted(graph.kept) == ["1.gain", "1.shift"]


@pytest.mark.parametrize("cls", [Scale, Quiet])
def test_a_handler_gives_the_nodes_of_a_layer_and_of_its_subclasses(cls):
    @register_layer(Scale)
    def scale(layer):
        return [("ln", [("gain", "gain"), ("shift", "bias")])]

    graph = from_module(around(cls(7)), X)
    assert kinds(graph) == ["input", "conv", "ln", "conv"]
    assert graph.param_names == [[], ["0.weight"], ["1.gain", "1.shift"], ["2.weight"]]
    assert [spec.role for spec in graph.params[2]] == ["gain", "bias"]
    assert graph.node_shape[2].tolist() == [7, 1, 1, 1]
    assert graph.edge_index.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert graph.kept == {}


def test_the_handler_of_the_nearest_base_class_is_used():
    register_layer(Scale)(lambda layer: [("ln", [("gain", "gain")])])
    register_layer(Quiet)(lambda layer: [("bn", [("gain", "gain")])])
    assert kinds(from_module(around(Scale(7)), X))[2] == "ln"
    assert kinds(from_module(around(Quiet(7)), X))[2] == "bn"


def test_parameters_that_a_handler_leaves_out_are_kept():
    register_layer(Scale)(lambda layer: [("ln", [("gain", "gain")])])
    assert from_module(around(Scale(7)), X).kept == {"1.shift": "the handler of its layer leaves it out"}
    model = around(nn.Linear(7, 7))
    model.unused = Scale(7)
    model.forward = lambda x: model[2](model[1](model[0](x)))
    assert set(from_module(model, X).kept.values()) == {"the forward pass does not use it"}


def test_parameters_that_are_none_are_skipped():
    """One handler serves layers with and without a bias."""
    register_layer(Scale)(lambda layer: [("ln", [("gain", "gain"), ("shift", "bias")])])
    layer = Scale(7)
    layer.shift = None
    layer.forward = lambda x: x * layer.gain
    assert from_module(around(layer), X).param_names[2] == ["1.gain"]


def test_parameters_shared_by_handled_layers_are_known_by_either_name():
    register_layer(Scale)(lambda layer: [("ln", [("gain", "gain"), ("shift", "bias")])])
    first, second = Scale(5), Scale(5)
    second.gain = first.gain
    graph = from_module(nn.Sequential(first, nn.Linear(5, 5, bias=False), second), X)
    assert graph.param_names == [[], ["0.gain", "0.shift"], ["1.weight"], ["2.shift"]]
    assert graph.node_shape[3].tolist() == [5, 1, 1, 1]
    assert graph.kept == {}


FORM = r"must return \[\(node type, \[\(parameter's name, role\), …\]\), …\], got "
FAULTS = {
    "a misspelt role": (
        [("ln", [("gain", "gian"), ("shift", "bias")])],
        "'gain' with role 'gian' in a node of type 'ln', which takes parameters of role 'gain' or 'bias'",
    ),
    "a bias in a convolution": (
        [("conv", [("gain", "weight"), ("shift", "bias")])],
        "'shift' with role 'bias' in a node of type 'conv', which takes parameters of role 'weight'",
    ),
    "a parameter in a pooling": ([("max_pool", [("gain", "gain")])], "'max_pool', which takes no parameters"),
    "a misspelt parameter": (
        [("ln", [("gian", "gain")])],
        r"a parameter 'gian', which the layer does not have; expected gain, shift; did you mean gain",
    ),
    "a misspelt node type": ([("lnn", [("gain", "gain")])], "node type 'lnn'; expected max_pool, .*; did you mean ln"),
    "the input": ([("input", [])], "returned the node type 'input'; expected max_pool, "),
    "a parameter twice": ([("ln", [("gain", "gain")]), ("bias", [("gain", "bias")])], "returned 'gain' twice"),
    "positions of one dimension": (
        [("pos_enc", [("gain", "position")])],
        r"'gain' with role 'position', expected 2 to 6 dimensions, and it has shape \(7,\)",
    ),
    "a node type alone": ("ln", FORM + "'ln'"),
    "a node outside of a list": (("ln", [("gain", "gain")]), FORM + r"\('ln'"),
    "names without roles": ([("ln", ["gain", "shift"])], FORM + r"\[\('ln', \['gain'"),
    "a tensor for a name": ([("ln", [(torch.zeros(2), "gain")])], FORM),
}


@pytest.mark.parametrize(("nodes", "message"), FAULTS.values(), ids=FAULTS)
def test_invalid_results_of_a_handler_are_errors(nodes, message):
    register_layer(Scale)(lambda layer: nodes)
    model = around(Quiet(7))
    before = snapshot(model)
    with pytest.raises(ValueError, match=f"^the handler that register_layer has for Quiet .*{message}"):
        from_module(model, X)
    assert_unchanged(model, before)


def test_a_layer_of_several_nodes_is_a_chain():
    register_layer(Scale)(lambda layer: [("conv", [("gain", "weight")]), ("bias", [("shift", "bias")])])
    graph = from_module(around(Scale(7)), X)
    assert graph.node_names == ["input", "0.weight", "1.gain", "1.shift", "2.weight"]
    assert graph.edge_index.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]


def test_a_layer_of_no_nodes_is_folded():
    register_layer(Scale)(lambda layer: [])
    graph = from_module(around(Scale(7)), X)
    assert graph.node_names == ["input", "0.weight", "2.weight"]
    assert sources(graph)["2.weight"] == ["0.weight"]


def test_a_layer_without_parameters_may_be_a_node():
    class Average(nn.Module):
        def forward(self, x):
            return x.sum(1) / x.size(1)

    register_layer(Average)(lambda layer: [("glob_avg", [])])
    graph = from_module(nn.Sequential(nn.Linear(5, 7), Average(), nn.Linear(7, 2)), X)
    assert kinds(graph) == ["input", "conv", "bias", "glob_avg", "conv", "bias"]


def test_layers_inside_a_handled_layer_are_part_of_it():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(7, 7), nn.LayerNorm(7))

        def forward(self, x):
            return x + self.inner(x)

    register_layer(Block)(lambda layer: [("conv", [("inner.0.weight", "weight")])])
    graph = from_module(around(Block()), X)
    assert graph.node_names == ["input", "0.weight", "1.inner.0.weight", "2.weight"]
    assert sorted(graph.kept) == ["1.inner.0.bias", "1.inner.1.bias", "1.inner.1.weight"]


def test_a_handled_layer_may_have_several_inputs_and_outputs():
    class Mix(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = weight(7)

        def forward(self, x, other):
            return x * self.gain, {"other": other}

    register_layer(Mix)(lambda layer: [("ln", [("gain", "gain")])])

    def forward(self, x):
        first, rest = self.mix(self.a(x), other=self.b(x))
        return self.c(first + rest["other"])

    graph = from_module(
        network(forward, a=nn.Linear(5, 7, bias=False), b=nn.Linear(5, 7, bias=False), mix=Mix(),
                c=nn.Linear(7, 2, bias=False)), X
    )  # fmt: skip
    assert sources(graph)["mix.gain"] == ["a.weight", "b.weight"]
    assert sources(graph)["c.weight"] == ["mix.gain"]


@pytest.mark.parametrize("cls", [3, int, "Linear", nn.Linear(2, 3), None])
def test_only_module_classes_can_have_a_handler(cls):
    with pytest.raises(TypeError, match=r"register_layer expected a subclass of torch\.nn\.Module, got"):
        register_layer(cls)
