"""Small networks, what a trace says of them, and PyTorch itself to compare the shapes with."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ghn_pyg import PRIMITIVES, TracingError, from_module


def kinds(graph):
    """The type of every node."""
    return [PRIMITIVES[kind] for kind in graph.node_type.tolist()]


def edges(graph):
    """All edges as pairs."""
    return [tuple(edge) for edge in graph.edge_index.t().tolist()]


def sources(graph):
    """For each node the names of its predecessors."""
    found = {name: [] for name in graph.node_names}
    for source, target in edges(graph):
        found[graph.node_names[target]].append(graph.node_names[source])
    return found


def network(forward, **members):
    """A network with these members (layers, parameters, buffers or anything else) and this forward pass."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            for name, member in members.items():
                if isinstance(member, torch.Tensor) and not isinstance(member, nn.Parameter):
                    self.register_buffer(name, member)
                else:
                    setattr(self, name, member)

        def forward(self, *args, **kwargs):
            return forward(self, *args, **kwargs)

    return Network()


def weight(*shape):
    """A parameter of this shape."""
    return nn.Parameter(torch.rand(shape))


def replace_tensors(function, value):
    """``value`` with ``function`` applied to every tensor in its lists, tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: replace_tensors(function, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(replace_tensors(function, item) for item in value)
    return value


def shapes(value):
    """Shape and type of every tensor."""
    found = []
    replace_tensors(lambda tensor: found.append((tuple(tensor.shape), tensor.dtype)), value)
    return found


def computed(function, args, kwargs):
    """What PyTorch really computes, on copies of the tensors."""
    copies = {}

    def copy(tensor):
        return copies.setdefault(id(tensor), tensor.detach().clone())

    with torch.no_grad():
        return function(*replace_tensors(copy, args), **replace_tensors(copy, kwargs))


def traced(function, args, kwargs):
    """The graph of a network that calls ``function``, and the shapes of the abstract result.

    Parameters among the arguments become parameters of the network, other tensors its inputs.
    """
    weights, inputs, seen = [], [], []

    def place(tensor):
        kept = weights if isinstance(tensor, nn.Parameter) else inputs
        if not any(tensor is known for known in kept):
            kept.append(tensor)
        return tensor

    replace_tensors(place, (args, kwargs))

    def forward(self, *given):
        def find(tensor):
            isweight = isinstance(tensor, nn.Parameter)
            known, values = (weights, list(self.weights)) if isweight else (inputs, given)
            return next(value for old, value in zip(known, values, strict=True) if old is tensor)

        result = function(*replace_tensors(find, args), **replace_tensors(find, kwargs))
        seen.append(shapes(result))
        return self.last(torch.ones(1, 2)), result

    net = network(forward, weights=nn.ParameterList(weights), last=nn.Linear(2, 3))
    graph = from_module(net, tuple(inputs))
    return graph, seen[0]


def assert_same_shapes(function, args, kwargs):
    """The abstract result has the shapes and types of the real one."""
    expected = shapes(computed(function, args, kwargs))
    assert traced(function, args, kwargs)[1] == expected


def assert_refused(function, args, kwargs):
    """PyTorch raises an error, and so does the trace."""
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        function(*args, **kwargs)
    with pytest.raises(TracingError):
        traced(function, args, kwargs)


def calls(cases):
    """Gives a test each (function, args, kwargs), in the order of names: some come from sets, which have none."""

    def name(case):
        return getattr(case[0], "__qualname__", case[0].__name__)

    cases = sorted(cases, key=name)
    return pytest.mark.parametrize(("function", "args", "kwargs"), cases, ids=map(name, cases))


class Recorder(TorchFunctionMode):
    """Notes every PyTorch function that is called."""

    def __init__(self):
        super().__init__()
        self.called = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.called.add(func)
        return func(*args, **(kwargs or {}))


def functions_called(cases):
    """The PyTorch functions that (function, args, kwargs) are and call."""
    recorder = Recorder()
    recorder.called.update(function for function, *_ in cases)
    for function, args, kwargs in cases:
        with recorder:
            computed(function, args, kwargs)
    return recorder.called


def snapshot(model):
    """All that a trace must leave alone: tensors with values, versions and places; modes; attributes; containers."""
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        values = None if tensor.is_meta else tensor.detach().clone()
        state["tensor", name] = (id(tensor), tensor._version, tensor.requires_grad, tensor.grad, values)
    for path, module in model.named_modules():
        for name, value in module.__dict__.items():
            state["attribute", path, name] = (id(value), repr(value))
    return state


def assert_unchanged(model, before):
    """Nothing differs from the :func:`snapshot` ``before``."""
    after = snapshot(model)
    assert after.keys() == before.keys()
    for key, old in before.items():
        new = after[key]
        if key[0] == "tensor":
            assert new[:-1] == old[:-1], key
            assert old[-1] is None or torch.equal(new[-1], old[-1]), key
        else:
            assert new == old, key
