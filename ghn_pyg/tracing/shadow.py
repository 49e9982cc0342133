"""A stand-in for a network that shares its parameters, so that a trace leaves the network itself untouched."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.arch_data import ParamSpec
from ..utils.nested_tensors import map_tensors, tensors_in
from .kept import Kept
from .registry import LayerNode, check_nodes, handler_for
from .tracer import Tracer
from .values import CONSTANT

_PLAIN = frozenset((str, int, float, bool, type(None), bytes, type, types.FunctionType, types.BuiltinFunctionType))
_MODULE_STATE = frozenset(nn.Module().__dict__) | {"forward"}
_HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
          "_forward_pre_hooks_with_kwargs")  # fmt: skip
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@contextlib.contextmanager
def shadow(model: nn.Module, tracer: Tracer, training: bool) -> Iterator[nn.Module]:
    """A copy of ``model``'s module objects (not of its tensors) in the given mode, whose layers report to ``tracer``.

    What the forward pass sets on modules, or appends to their lists, is set on the copy. It lives inside the context
    only: the copies refer to themselves and are taken apart at the end, so that no garbage is left to collect.
    """
    copies = _Shadow(tracer, training)
    try:
        yield copies.build(model)
    finally:
        for copy in copies.memo.values():
            copy.__dict__.clear()
        for hooks, before in copies.hooks:  # a hook that removes itself removes it from the original
            if dict(hooks) != before:
                hooks.clear()
                hooks.update(before)
        for kept, contents in copies.collected:  # and one that collects activations does so outside the network
            kept.clear()
            (kept.extend if isinstance(kept, list) else kept.update)(contents)


class _Shadow:
    def __init__(self, tracer: Tracer, training: bool) -> None:
        self.tracer = tracer
        self.training = training
        self.memo: dict[int, nn.Module] = {}
        self.known: dict[int, Any] = {}
        self.lists: dict[int, list[Any]] = {}
        self.hooks: list[tuple[dict[int, Any], dict[int, Any]]] = []
        self.collected: list[tuple[Any, Any]] = []
        self.pending: list[tuple[nn.Module, nn.Module, str]] = []

    def build(self, model: nn.Module) -> nn.Module:
        copy = self.module(model, "")
        # Other attributes come after all registered modules, whose paths they must not take.
        while self.pending:
            self.attributes(*self.pending.pop())
        return copy

    def module(self, original: nn.Module, path: str) -> nn.Module:
        if id(original) in self.memo:
            if path:
                self.tracer.alias(path, original)
            return self.memo[id(original)]
        if (inner := wrapped(original)) is not None:
            return self.module(original._modules[inner], _join(path, inner))  # type: ignore[arg-type]
        if isinstance(original, torch.jit.ScriptModule):  # lives outside Python
            self.adopt(path, dict(original.named_parameters()), dict(original.named_buffers()))
            self.tracer.reasons.update((name, Kept.SCRIPTED) for name, _ in original.named_parameters(path))
            return self.memo.setdefault(id(original), deepcopy(original))
        copy: nn.Module = object.__new__(type(original))
        self.memo[id(original)] = self.known[id(original)] = copy
        self.pending.append((original, copy, path))
        state = copy.__dict__
        state.update(original.__dict__)
        state["training"] = self.training
        state["_compiled_call_impl"] = None  # it would call the original
        self.adopt(path, original._parameters, original._buffers)
        state["_parameters"] = original._parameters.copy()
        state["_buffers"] = original._buffers.copy()
        for name in _HOOKS:
            hooks = original.__dict__[name]
            state[name] = hooks.copy()
            if hooks:
                self.hooks.append((hooks, dict(hooks)))
                self.collected += [(kept, kept.copy()) for hook in hooks.values() for kept in _closed_over(hook)]
        state["_modules"] = {
            name: None if child is None else self.module(child, _join(path, name))
            for name, child in original._modules.items()
        }
        cls: Any = type(original)
        for slot in slots(cls):
            if hasattr(original, slot):
                setattr(copy, slot, getattr(original, slot))
        return copy

    def adopt(self, path: str, parameters: dict[str, Any], buffers: dict[str, Any]) -> None:
        self.tracer.adopt(path, parameters, buffers)
        self.known.update((id(tensor), tensor) for tensor in (*parameters.values(), *buffers.values()))

    def attributes(self, original: nn.Module, copy: nn.Module, path: str) -> None:
        copy.__dict__["forward"] = self.forward(copy, original, path)
        for name in original.__dict__.keys() - _MODULE_STATE:
            value = original.__dict__[name]
            if type(value) not in _PLAIN:
                copy.__dict__[name] = self.attribute(value)

    def attribute(self, value: Any) -> Any:
        """A copy in which the copies stand for the modules, and parameters and buffers for themselves."""
        if type(value) in (list, tuple) and all(type(item) in _PLAIN for item in value):
            return value if type(value) is tuple else self.lists.setdefault(id(value), list(value))
        if isinstance(value, nn.Module):
            return self.module(value, "")
        try:
            return deepcopy(value, self.known)
        except Exception:  # noqa: BLE001  # what cannot be copied (locks, files, ...) is shared
            return value

    def forward(self, copy: nn.Module, original: nn.Module, path: str) -> Callable[..., Any]:
        own = self.attribute(original.__dict__["forward"]) if "forward" in original.__dict__ else None
        function = own if own is not None else types.MethodType(type(copy).forward, copy)
        if (handler := handler_for(type(original))) is not None:
            function = self.handled(function, original, check_nodes(original, handler(original)), path)
        scope = self.tracer.scope

        def scoped(*args: Any, **kwargs: Any) -> Any:
            scope.append(path)
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not hasattr(error, "ghn_scope"):
                    error.ghn_scope = path  # type: ignore[attr-defined]
                raise
            finally:
                scope.pop()

        return scoped

    def handled(
        self, function: Callable[..., Any], original: nn.Module, chain: list[LayerNode], path: str
    ) -> Callable[..., Any]:
        """A layer with a handler: its forward pass gives shapes alone, its handler the nodes."""
        tracer = self.tracer

        def spec(name: str, role: Any) -> ParamSpec:
            name = tracer.tied.get(name, name)
            return ParamSpec(name, tuple(tracer.parameters[name].shape), role)

        def forward(*args: Any, **kwargs: Any) -> Any:
            with tracer.muted():
                result = function(*args, **kwargs)
            for name, _ in original.named_parameters(path):
                tracer.reasons.setdefault(tracer.tied.get(name, name), Kept.LEFT_OUT)
            sources = tracer.merged(tensors_in((args, kwargs))).sources
            for kind, params in chain:
                sources = tracer.step(kind, sources, tuple(spec(_join(path, short), role) for short, role in params))
            value = CONSTANT._replace(sources=sources)

            def emitted(tensor: Tensor) -> Tensor:
                known = not tensor.is_floating_point() and not tracer.is_abstract(tensor)  # lengths
                return tensor if known else tracer.emit(tensor.shape, tensor.dtype, value)

            return map_tensors(emitted, result)

        return forward


@functools.cache
def slots(cls: Any) -> tuple[str, ...]:
    """Attributes that a class keeps outside of its instances' dictionaries."""
    found: list[str] = []
    for base in cls.__mro__:
        own = base.__dict__.get("__slots__", ())
        found += (own,) if isinstance(own, str) else tuple(own)
    return tuple(slot for slot in found if slot not in ("__dict__", "__weakref__"))


def _closed_over(hook: Any) -> list[Any]:
    """Lists, dictionaries and sets that a hook can write to: those that its function closes over."""
    try:
        values = inspect.getclosurevars(hook).nonlocals.values()
    except (TypeError, ValueError):  # no Python function, or a name that is not bound yet
        return []
    return [value for value in values if isinstance(value, (list, dict, set))]


def wrapped(module: nn.Module) -> str | None:
    """The name under which a compiled or data-parallel wrapper holds the network that it stands for."""
    if "_orig_mod" in module._modules:
        return "_orig_mod"
    return "module" if "module" in module._modules and isinstance(module, _PARALLEL) else None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
