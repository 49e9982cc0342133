"""``register_layer``: layers of which a handler says which nodes they are; and the check of what handlers return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from torch import nn

from ..graph.node_types import PRIMITIVES, ROLES
from ..utils.suggest import suggestion

LayerNode = tuple[str, list[tuple[str, str]]]
LayerHandler = Callable[[Any], list[LayerNode]]
"""``handler(layer)`` → the chain of nodes that the layer is, each as (node type, [(parameter, role), …])."""

_KINDS: Final = tuple(kind for kind in PRIMITIVES if kind != "input")
_DIMENSIONS: Final = {"weight": range(1, 6), "position": range(2, 7)}
"""Role → how many dimensions its parameters may have; others may have any number."""


class RuleError(ValueError):
    """A handler of ``register_layer`` or a rule of ``register_parameter`` returned an invalid node."""


HANDLERS: Final[dict[type[nn.Module], LayerHandler]] = {}
"""Layer class → handler; a subclass is handled as its nearest registered base class."""


def register_layer(cls: type[nn.Module]) -> Callable[[LayerHandler], LayerHandler]:
    """Registers a handler that says which nodes a layer of this class becomes.

    PyTorch's own layers and their subclasses need no handler: the tracer recognises the functions that they call. A
    handler is for a layer whose meaning its arithmetic does not show, such as a norm of an unusual kind. The layer's
    forward pass still runs, without data, for the shape of its output.

    Args:
        cls: The layer's class. A subclass without a handler of its own uses that of its nearest base class.

    Returns:
        A decorator for a function of the layer that returns its chain of nodes, from input to output:
        ``[(node type, [(parameter's name in the layer, role), …]), …]``. The roles are ``"weight"`` in ``"conv"``,
        ``"sep_conv"`` and ``"dil_conv"``, ``"gain"`` and ``"bias"`` in ``"bn"`` and ``"ln"``, ``"bias"`` in a node
        ``"bias"`` of its own, and ``"position"`` in ``"pos_enc"``. Parameters that it leaves out keep their values;
        those that are ``None`` are skipped. :func:`~ghn_pyg.from_module` raises a :class:`ValueError` for any other
        result.

    Raises:
        TypeError: If ``cls`` is no subclass of :class:`torch.nn.Module`.

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


def handled_nodes(layer: nn.Module) -> list[LayerNode] | None:
    """The nodes of ``layer`` by the handler of its class or nearest base class, without ``None`` parameters."""
    if HANDLERS.keys().isdisjoint(mro := type(layer).__mro__):
        return None
    handler = next(HANDLERS[base] for base in mro if base in HANDLERS)
    parameters = {
        f"{path}.{name}" if path else name: parameter
        for path, module in layer.named_modules(remove_duplicate=False)
        for name, parameter in module._parameters.items()
    }
    nodes = handler(layer)
    check_nodes(f"the handler that register_layer has for {type(layer).__name__}", parameters, nodes)
    return [(kind, [(name, role) for name, role in params if parameters[name] is not None]) for kind, params in nodes]


def check_nodes(who: str, parameters: Mapping[str, nn.Parameter | None], nodes: Any) -> None:
    """Raises a :class:`RuleError` if ``nodes`` is no chain of nodes with these parameters."""
    if (fault := next(_faults(parameters, nodes), None)) is not None:
        raise RuleError(f"{who} {fault}")


def _faults(parameters: Mapping[str, nn.Parameter | None], nodes: Any) -> Iterator[str]:
    if not _is_chain(nodes):
        yield f"must return [(node type, [(parameter's name, role), …]), …], got {nodes!r:.200}"
        return
    for kind, params in nodes:
        if kind not in _KINDS:
            yield f"returned the node type {kind!r}; {_hint(kind, _KINDS)}"
        for name, role in params:
            if name not in parameters:
                yield f"returned a parameter {name!r}, which the layer does not have; {_hint(name, parameters)}"
            if role not in (roles := ROLES.get(kind, ())):
                takes = f"parameters of role {' or '.join(map(repr, roles))}" if roles else "no parameters"
                yield f"returned {name!r} with role {role!r} in a node of type {kind!r}, which takes {takes}"
            parameter, dims = parameters[name], _DIMENSIONS.get(role)
            if dims and parameter is not None and not nn.parameter.is_lazy(parameter) and parameter.dim() not in dims:
                expected = f"expected {dims[0]} to {dims[-1]} dimensions, and it has shape {tuple(parameter.shape)}"
                yield f"returned {name!r} with role {role!r}, {expected}"
    names = [name for _, params in nodes for name, _ in params]
    yield from (f"returned {name!r} twice, expected each parameter once" for name in names if names.count(name) > 1)


def _is_chain(nodes: Any) -> bool:
    """Whether ``nodes`` has the form [(text, [(text, text), …]), …], as lists or tuples."""
    return _is_list(nodes) and all(
        _is_list(node, 2) and isinstance(node[0], str) and _is_list(node[1])
        and all(_is_list(pair, 2) and all(isinstance(part, str) for part in pair) for pair in node[1])
        for node in nodes
    )  # fmt: skip


def _is_list(value: Any, size: int | None = None) -> bool:
    return isinstance(value, (list, tuple)) and size in (None, len(value))


def _hint(name: str, known: Iterable[str]) -> str:
    return f"expected {', '.join(known) or 'no parameter'}{suggestion(name, known)}"
