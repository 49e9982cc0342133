"""Tensors in nested arguments and results, and in objects of any kind."""

from __future__ import annotations

import collections
import copy
import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from torch import Tensor, nn

# Neither looked into nor copied: they belong to the program, not to the data.
_PROGRAM: Final = (nn.Module, type, types.ModuleType, types.FunctionType, types.MethodType, functools.partial)
_CONTAINERS: Final = (list, tuple, dict, types.MappingProxyType, set, frozenset, collections.deque)


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with ``function`` applied to every tensor in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, item) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)([map_tensors(function, item) for item in value])
    if type(value) is dict:
        return {key: map_tensors(function, item) for key, item in value.items()}
    return value


def tensors_inside(value: Any) -> Iterator[Tensor]:
    """All tensors in a value of any kind, each once: in containers, and in attributes of objects.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> [tuple(tensor.shape) for tensor in tensors_inside([Data(x=torch.rand(3, 5)), {"y": torch.rand(7)}])]
        [(3, 5), (7,)]
    """
    return (part for part in _parts(value, {}) if isinstance(part, Tensor))


def copy_with_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """A deep copy of a value of any kind that has ``function(tensor)`` in place of each tensor.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> copy_with_tensors(torch.Tensor.tolist, SimpleNamespace(x=torch.zeros(2)))
        namespace(x=[0.0, 0.0])
    """
    memo: dict[int, Any] = {}
    proxies: list[Any] = []
    for part in _parts(value, {}):
        if isinstance(part, Tensor):
            memo[id(part)] = function(part)
        elif isinstance(part, _PROGRAM) or _is_opaque(part):
            memo[id(part)] = part
        elif isinstance(part, types.MappingProxyType):
            proxies.append(part)
    for proxy in reversed(proxies):  # inner ones first
        memo[id(proxy)] = types.MappingProxyType(copy.deepcopy(dict(proxy), memo))
    return copy.deepcopy(value, memo)


def _parts(value: Any, seen: dict[int, Any]) -> Iterator[Any]:
    """A value and all that it consists of, each object once."""
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept alive, so that no other object gets its id
    yield value
    if isinstance(value, (Tensor, *_PROGRAM)):
        return
    if isinstance(value, _CONTAINERS):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _parts(item, seen)
    state = object.__getstate__(value)  # attributes, or a pair of them and those in slots
    for attributes in state if isinstance(state, tuple) else (state,):
        for attribute in (attributes or {}).values():
            yield from _parts(attribute, seen)


def _is_opaque(value: Any) -> bool:
    """Whether a value is neither a container nor has attributes: a number, or a random generator or lock."""
    return not isinstance(value, _CONTAINERS) and not hasattr(value, "__dict__") and object.__getstate__(value) is None
