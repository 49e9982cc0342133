"""Layer types that the tracer takes as a whole, by class; users add their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from torch import nn

from ..data import ParamSpec

LayerNode = tuple[str, tuple[ParamSpec, ...]]
LayerHandler = Callable[[Any], list[tuple[str, list[tuple[str, str]]]]]
"""``handler(layer)`` → the chain of nodes that the layer is, each as (node type, [(parameter, role), …])."""

HANDLERS: Final[dict[type[nn.Module], LayerHandler]] = {}
"""Layer class → handler; a subclass is handled as its nearest registered base class."""


def register_layer(cls: type[nn.Module]) -> Callable[[LayerHandler], LayerHandler]:
    """Tells the tracer which nodes a layer type stands for.

    PyTorch's own layers need no handler: they are recognised by the functions that they call, in subclasses too. A
    handler is for a layer whose meaning its arithmetic does not show, such as a norm of an unusual kind. The layer's
    forward pass still runs (without data), for the shape of its output.

    Args:
        cls: The layer's class; subclasses are handled likewise, unless they have a handler of their own.

    Returns:
        A decorator for a function of the layer that returns the chain of nodes, from input to output:
        ``[(node type, [(parameter's name in the layer, role), …]), …]`` with role ``"weight"``, ``"gain"``,
        ``"bias"`` or ``"position"``. Parameters that it leaves out keep their values.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class AbsoluteNorm(nn.Module):
        ...     def __init__(self, channels):
        ...         super().__init__()
        ...         self.scale = nn.Parameter(torch.ones(channels))
        ...
        ...     def forward(self, x):
        ...         return x / x.abs().sum(-1, keepdim=True) * self.scale
        >>> @register_layer(AbsoluteNorm)
        ... def absolute_norm(layer):
        ...     return [("ln", [("scale", "gain")])]
        >>> from ghn_pyg import from_module
        >>> network = nn.Sequential(nn.Linear(5, 7), AbsoluteNorm(7), nn.Linear(7, 3))
        >>> from_module(network, torch.zeros(1, 5)).node_names
        ['input', '0.weight', '0.bias', '1.scale', '2.weight', '2.bias']
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"register_layer expected a subclass of torch.nn.Module, got {cls!r}")

    def register(handler: LayerHandler) -> LayerHandler:
        HANDLERS[cls] = handler
        return handler

    return register


def handler_for(cls: type[nn.Module]) -> LayerHandler | None:
    """The handler of ``cls`` or of its nearest base class that has one."""
    return next((HANDLERS[base] for base in cls.__mro__ if base in HANDLERS), None)


@register_layer(nn.RNNCellBase)
def recurrent_cell(layer: nn.RNNCellBase) -> list[tuple[str, list[tuple[str, str]]]]:
    """One step of a recurrent layer: both matrices, each with its bias."""
    biases = [("bias", [("bias_ih", "bias")]), ("bias", [("bias_hh", "bias")])] if layer.bias else [None, None]
    chain = [("conv", [("weight_ih", "weight")]), biases[0], ("conv", [("weight_hh", "weight")]), biases[1]]
    return [node for node in chain if node is not None]


@register_layer(nn.RNNBase)
def recurrent(layer: nn.RNNBase) -> list[tuple[str, list[tuple[str, str]]]]:
    """LSTM, GRU and Elman networks: their matrices and biases, layer by layer."""
    names = [name for group in layer._all_weights for name in group]
    return [
        ("conv", [(name, "weight")]) if getattr(layer, name).dim() > 1 else ("bias", [(name, "bias")]) for name in names
    ]
