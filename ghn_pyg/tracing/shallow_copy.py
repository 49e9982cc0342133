"""A copy of a network's modules that shares its tensors, so that a trace leaves the network itself untouched.

Here a layer with a handler of ``register_layer`` becomes the nodes that the handler returned.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Final

import torch
from torch import Tensor, nn

from ..graph.arch_data import ParamSpec
from ..utils.nested_tensors import map_tensors, tensors_in
from .kept_reasons import Kept
from .registry import LayerNode, handled_nodes
from .tracer import Tracer
from .values import Value

_IMMUTABLE: Final = frozenset((str, int, float, bool, type(None), bytes, type, types.BuiltinFunctionType))
_MODULE_STATE: Final = frozenset(nn.Module().__dict__) | {"forward"}
_FUNCTIONS: Final = ("_forward_hooks", "_forward_pre_hooks")
_HOOKS: Final = (
    *_FUNCTIONS, "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs"
)  # fmt: skip
_PARALLEL: Final = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@contextlib.contextmanager
def shallow_copy(model: nn.Module, tracer: Any, training: bool, handled: bool = True) -> Iterator[nn.Module]:
    """Copies the modules of ``model``, but not their tensors, in the given mode; the copies report to ``tracer``.

    What the forward pass and hooks set on modules, or append to their lists, is set on the copy. Variables that hooks
    refer to are restored. The copies refer to themselves, so they are cleared at the end of the context: no garbage is
    left to collect.
    """
    copier = _Copier(tracer, training, handled)
    try:
        with copier.restored:
            copy = copier.module(model, "")
            while copier.pending:  # other attributes come after all registered modules, which have a path
                copier.attributes(*copier.pending.pop())
            for hooks in copier.hooks:  # may refer to all of them
                hooks.update({number: copier.attribute(hook) for number, hook in hooks.items()})
            yield copy
    finally:
        for copy in copier.modules.values():
            copy.__dict__.clear()


class _Copier:
    def __init__(self, tracer: Tracer, training: bool, handled: bool) -> None:
        self.tracer = tracer
        self.training = training
        self.handled = handled  # whether handlers replace the forward pass of their layers
        self.modules: dict[int, nn.Module] = {}  # by id of the original
        self.copies: dict[int, Any] = dict(tracer.owned)  # what deepcopy finds instead of copying anew
        self.hooks: list[dict[int, Any]] = []
        self.restored = contextlib.ExitStack()  # puts back what the trace writes to outside of the copies
        self.pending: list[tuple[nn.Module, nn.Module, str]] = []

    def module(self, original: nn.Module, path: str) -> nn.Module:
        if id(original) in self.modules:
            return self.modules[id(original)]
        if (inner := wrapped(original)) is not None:
            return self.module(original._modules[inner], _join(path, inner))  # type: ignore[arg-type]
        if isinstance(original, torch.jit.ScriptModule):  # its attributes are not in Python, so it runs itself
            for module in original.modules():
                self.restored.callback(setattr, module, "training", module.training)
            return original.train(self.training)
        copy: nn.Module = object.__new__(type(original))
        self.modules[id(original)] = self.copies[id(original)] = copy
        self.pending.append((original, copy, path))
        state = original.__dict__.copy()
        object.__setattr__(copy, "__dict__", state)
        state["training"] = self.training
        state["_compiled_call_impl"] = None  # it would call the original
        state["_parameters"] = original._parameters.copy()
        state["_buffers"] = original._buffers.copy()
        for name in _HOOKS:
            state[name] = original.__dict__[name].copy()
            if state[name]:
                self.restore(original.__dict__[name])  # a hook may remove itself
                if name in _FUNCTIONS:
                    self.hooks.append(state[name])
        if isinstance(attributes := object.__getstate__(original), tuple):  # the class has slots
            for name, value in attributes[1].items():
                setattr(copy, name, value)
        state["_modules"] = {
            name: None if child is None else self.module(child, _join(path, name))
            for name, child in original._modules.items()
        }
        return copy

    def attributes(self, original: nn.Module, copy: nn.Module, path: str) -> None:
        copy.__dict__["forward"] = self.forward(copy, original, path)
        for name in original.__dict__.keys() - _MODULE_STATE:
            value = original.__dict__[name]
            if type(value) not in _IMMUTABLE:
                copy.__dict__[name] = self.attribute(value)

    def attribute(self, value: Any) -> Any:
        """A copy that refers to the copied modules, and to the original parameters and buffers."""
        if type(value) in (list, tuple) and _IMMUTABLE.issuperset(map(type, value)):
            return value if type(value) is tuple else self.copies.setdefault(id(value), list(value))
        if isinstance(value, nn.Module):
            return self.module(value, "")
        if isinstance(value, types.FunctionType):
            return self.function(value)
        if type(value) is functools.partial:
            options = {name: self.attribute(option) for name, option in value.keywords.items()}
            return functools.partial(self.attribute(value.func), *map(self.attribute, value.args), **options)
        try:
            return deepcopy(value, self.copies)
        except Exception:  # noqa: BLE001  # what cannot be copied (locks, files, ...) is shared
            return value

    def function(self, function: types.FunctionType) -> types.FunctionType:
        """A function that refers to the copies of the modules which it closes over or finds among its globals."""
        if id(function) in self.copies:
            return self.copies[id(function)]
        self.copies[id(function)] = function  # which may close over itself
        cells, changed = [], {}
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                copied = self.referred(contents := cell.cell_contents)
                self.restored.callback(setattr, cell, "cell_contents", contents)
                cell = cell if copied is contents else types.CellType(copied)
            cells.append(cell)
        for name in function.__code__.co_names:
            copied = self.referred(contents := function.__globals__.get(name))
            if copied is not contents:
                changed[name] = copied
        if changed or tuple(cells) != (function.__closure__ or ()):
            names = function.__globals__ | changed if changed else function.__globals__
            copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, tuple(cells))
            copy.__kwdefaults__ = function.__kwdefaults__
            self.copies[id(function)] = copy
        return self.copies[id(function)]

    def referred(self, value: Any) -> Any:
        """What a function refers to: the copy of a module, of its method or of its attribute, else the value itself."""
        if id(value) in self.copies or isinstance(value, (types.FunctionType, types.MethodType)):
            return self.attribute(value)
        if isinstance(value, (list, dict, set)):
            self.restore(value)
        return value

    def restore(self, container: Any) -> None:
        """Puts the contents of a list, dictionary or set back after the trace."""
        contents = container.copy()

        def put_back() -> None:
            if not _same(container, contents):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(contents)

        self.restored.callback(put_back)

    def forward(self, copy: nn.Module, original: nn.Module, path: str) -> Callable[..., Any]:
        """The module's forward pass, which tells the tracer that it runs."""
        own = self.attribute(original.__dict__["forward"]) if "forward" in original.__dict__ else None
        function = own if own is not None else types.MethodType(type(copy).forward, copy)
        if self.handled and (nodes := handled_nodes(original)) is not None:
            function = _handled(self.tracer, function, original, nodes, path)
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


def _handled(
    tracer: Tracer, function: Callable[..., Any], original: nn.Module, nodes: list[LayerNode], path: str
) -> Callable[..., Any]:
    """The forward pass of a layer with a handler: it only gives shapes, and the handler gave the nodes."""

    def spec(name: str, role: Any) -> ParamSpec:
        name = tracer.tied.get(name, name)
        return ParamSpec(name, tuple(tracer.parameters[name].shape), role)

    def forward(*args: Any, **kwargs: Any) -> Any:
        with tracer.muted():
            result = function(*args, **kwargs)
        for name, _ in original.named_parameters(path):
            tracer.reasons.setdefault(tracer.tied.get(name, name), Kept.LEFT_OUT)
        sources = tracer.merged(tensors_in((args, kwargs))).sources
        for kind, params in nodes:
            sources = tracer.step(kind, sources, tuple(spec(_join(path, short), role) for short, role in params))

        def emitted(tensor: Tensor) -> Tensor:
            has_data = not tensor.is_floating_point() and not tracer.is_abstract(tensor)  # such as lengths
            return tensor if has_data else tracer.emit(tensor.shape, tensor.dtype, Value(sources))

        return map_tensors(emitted, result)

    return forward


def _same(container: Any, contents: Any) -> bool:
    """Whether two lists, dictionaries or sets hold the same objects."""
    if isinstance(container, dict):
        return list(container) == list(contents) and _same(list(container.values()), list(contents.values()))
    return len(container) == len(contents) and all(a is b for a, b in zip(container, contents, strict=True))


def wrapped(module: nn.Module) -> str | None:
    """The name under which a compiled or data-parallel wrapper holds its network."""
    if "_orig_mod" in module._modules:
        return "_orig_mod"
    return "module" if "module" in module._modules and isinstance(module, _PARALLEL) else None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
