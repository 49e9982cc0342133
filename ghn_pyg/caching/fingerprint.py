"""A hash of everything that the graph of a network depends on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import operator
import sys
import types
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._device import DeviceContext

from .. import data, graphs, primitives, transforms
from ..collecting import collector_paused
from ..graphs import layers, reasons
from ..graphs.layers import LayerHandler, handler_for
from ..graphs.shadow import slots, wrapped
from ..graphs.tensors import map_tensors
from . import stored
from .description import Description, Undescribable, within

FORMAT: Final = 1
"""Grows when the meaning of fingerprints changes, or that of graphs that are stored under them."""

_MODULE_STATE: Final = frozenset(nn.Module().__dict__)
_FORWARD_HOOKS: Final = (
    ("_forward_hooks", ("_forward_hooks_with_kwargs", "_forward_hooks_always_called")),
    ("_forward_pre_hooks", ("_forward_pre_hooks_with_kwargs",)),
)
_STATISTICS: Final = ("running_mean", "running_var")
_NORM: Final = nn.modules.batchnorm._NormBase
_TENSORS: Final = frozenset((Tensor, nn.Parameter))
_LARGEST: Final = 1 << 24
_NOT_TRACING: Final = frozenset(("ghn_pyg.graphs.drawing", "ghn_pyg.graphs.view"))


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """A hash of what a graph depends on.

    Args:
        key: The hash, 64 hexadecimal digits.
        unread: Running statistics by their ids. Their values are left out, so that a trained network has
            the key of a new one; the key stands for the graph only if the trace does not look at them.
    """

    key: str
    unread: dict[int, Tensor]


def fingerprint(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], cutoff: int) -> Fingerprint:
    """The fingerprint of a network and of the arguments that its graph is built with.

    Raises:
        Undescribable: If something that the graph may depend on cannot be described for sure; the message says what.

    Example:
        >>> from torch import nn
        >>> x = (torch.zeros(1, 3),)
        >>> fingerprint(nn.Linear(3, 2), x, {}, 50).key == fingerprint(nn.Linear(3, 2), x, {}, 50).key
        True
        >>> fingerprint(nn.Linear(3, 2), x, {}, 50).key == fingerprint(nn.Linear(3, 5), x, {}, 50).key
        False
    """
    description = NetworkDescription()
    description.words += (FORMAT, sys.version, sys.flags.optimize)
    try:
        with collector_paused():
            description.network(model)
            description.value(cutoff)
            description.value(map_tensors(_given, args))
            description.value(map_tensors(_given, kwargs))
            description.memory()
            description.surroundings()
            description.packages()
    except RecursionError:
        raise Undescribable("it is nested too deeply") from None
    return Fingerprint(description.digest(), description.unread)


class _Kind(NamedTuple):
    scripted: bool
    handler: LayerHandler | None
    statistics: tuple[str, ...]
    slots: tuple[str, ...]


class NetworkDescription(Description):
    """The description of a network, its arguments and what is around it."""

    def __init__(self) -> None:
        super().__init__()
        self.unread: dict[int, Tensor] = {}
        self.owned: list[Tensor] = []
        self.loose: list[Tensor] = []
        self.pending: list[tuple[str, nn.Module]] = []
        self.kinds: dict[Any, _Kind] = {}

    def network(self, model: nn.Module) -> None:
        """Adds a network: first all registered modules, whose names count, then their other attributes."""
        self.child("", model, registered=True)
        while self.pending:
            path, module = self.pending.pop()
            try:
                self.pairs(b"attributes", self.attributes(module))
            except Undescribable as fault:
                raise within(path or type(module).__name__, fault) from None

    def attributes(self, module: nn.Module) -> list[tuple[str, Any]]:
        """What a module has besides its parameters, buffers, children and hooks."""
        state, slots = module.__dict__, self.kind(type(module)).slots
        found = [(name, state[name]) for name in sorted(state.keys() - _MODULE_STATE)]
        return found + [(name, getattr(module, name)) for name in slots if hasattr(module, name)]

    def other(self, value: Any) -> None:
        """Adds tensors and modules that are no registered parts of the network, and all other objects."""
        if isinstance(value, Tensor):
            self.loose.append(value)
            self.tensor(value, values=True)
        elif isinstance(value, nn.Module):
            self.module("", value, registered=False)
        else:
            super().other(value)

    # --- modules -----------------------------------------------------------------------------------------------------

    def child(self, path: str, module: nn.Module | None, registered: bool) -> None:
        """Adds a part of a network, which may be missing or shared."""
        if module is None:
            self.words.append(b"none")
        elif not self.met(module):
            self.module(path, module, registered)

    def module(self, path: str, module: nn.Module, registered: bool) -> None:
        """Adds a module with its parameters, buffers, hooks and children; other attributes follow later.

        The mode of registered modules does not count, for a trace sets it. Handlers count by what they say of a module.
        """
        state, kind = module.__dict__, self.kind(type(module))
        if (inner := wrapped(module)) is not None:
            self.words.append(b"wrapped")
            self.child(f"{path}.{inner}" if path else inner, state["_modules"][inner], registered)
            return
        if kind.scripted or "_parameters" not in state:
            why = "is compiled by TorchScript" if kind.scripted else "is not initialised"
            raise Undescribable(f"{path or 'the network'} {why}")
        self.words += (b"module", None if registered else bool(module.training))
        self.known_class(type(module))
        if kind.handler is not None:
            self.words.append(b"handler")
            self.value(kind.handler(module))
        for name, parameter in state["_parameters"].items():
            self.part(name, parameter, values=False)
        if state["_buffers"]:
            self.buffers(state["_buffers"], kind.statistics)
        self.hooks(state)
        for name, child in state["_modules"].items():
            self.words += (b"child", name)
            self.child(f"{path}.{name}" if path else name, child, registered)
        self.words.append(b"end")
        self.pending.append((path, module))

    def kind(self, cls: Any) -> _Kind:
        """What is common to all modules of a class, looked up once."""
        if (kind := self.kinds.get(cls)) is None:
            statistics = _STATISTICS if issubclass(cls, _NORM) else ()
            kind = _Kind(issubclass(cls, torch.jit.ScriptModule), handler_for(cls), statistics, slots(cls))
            self.kinds[cls] = kind
        return kind

    def hooks(self, state: Mapping[str, Any], prefix: str = "") -> None:
        """Adds the hooks of a module's forward pass, in their order; their ids are accidents."""
        for kind, marks in _FORWARD_HOOKS:
            if hooks := state[prefix + kind]:
                for number, hook in hooks.items():
                    self.words += (b"hook", kind, *(number in state[prefix + mark] for mark in marks))
                    self.value(hook)
        if state[prefix + "_backward_hooks"] or state[prefix + "_backward_pre_hooks"]:  # they are not called
            self.words.append(b"backward hooks")

    # --- tensors -----------------------------------------------------------------------------------------------------

    def buffers(self, buffers: Mapping[str, Tensor | None], statistics: Collection[str]) -> None:
        """Adds a module's own buffers with their values, but for running statistics."""
        self.words.append(b"buffers")
        for name, buffer in buffers.items():
            if name in statistics and buffer is not None:
                self.unread[id(buffer)] = buffer
            self.part(name, buffer, values=name not in statistics)

    def part(self, name: str, tensor: Tensor | None, values: bool) -> None:
        """Adds a parameter or buffer, which may be missing or shared."""
        self.words.append(name)
        if tensor is None:
            self.words.append(b"none")
        elif not self.met(tensor):
            self.owned.append(tensor)
            self.tensor(tensor, values)

    def tensor(self, tensor: Tensor, values: bool) -> None:
        """Adds a tensor: all but its values, or with them.

        A trace never sees the values of parameters, but for those that a rule is asked about. It computes with those
        of other tensors, and may depend on them.
        """
        if type(tensor) not in _TENSORS or tensor.layout is not torch.strided or tensor.is_quantized:
            raise Undescribable(f"a tensor of type {type(tensor).__name__} and layout {tensor.layout}")
        meta = tensor.is_meta
        self.words += (
            b"tensor", tuple(tensor.shape), tensor.stride(), _name(tensor.dtype), meta, tensor.requires_grad,
        )  # fmt: skip
        if tensor.__dict__:
            self.pairs(b"attributes", tensor.__dict__.items())
        if tensor.is_leaf and (gradient := tensor.grad) is not None:
            self.words.append(b"gradient")
            if values:
                self.value(gradient)
        if values and not meta:
            self.words.append(_values(tensor))
        if (base := tensor._base) is not None:
            self.words.append(b"view")
            if not self.met(base):
                self.tensor(base, values=False)

    def memory(self) -> None:
        """Adds which tensors, other than parameters and buffers, share the memory of another."""
        if not self.loose:
            return
        places: dict[int, int] = {}
        for tensor in (*self.owned, *self.loose):
            if not tensor.is_meta:
                address = tensor.untyped_storage().data_ptr()
                places.setdefault(address, len(places)) if address else None
        for tensor in self.loose:
            self.words += (b"memory", None if tensor.is_meta else places.get(tensor.untyped_storage().data_ptr()))

    # --- what is around ----------------------------------------------------------------------------------------------

    def surroundings(self) -> None:
        """Adds settings of PyTorch that a forward pass may ask for, global hooks, and the rules of tracing."""
        if torch._C._len_torch_dispatch_stack():
            raise Undescribable("a TorchDispatchMode is active")
        modes = [torch._C._get_function_stack_at(place) for place in range(torch._C._len_torch_function_stack())]
        if not all(type(mode) is DeviceContext for mode in modes):
            raise Undescribable("a TorchFunctionMode is active")
        self.words.append(repr([
            torch.get_default_dtype(), torch.get_default_device(), torch.is_autocast_enabled("cpu"),
            torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cpu"), torch.get_autocast_dtype("cuda"),
            torch.is_inference_mode_enabled(), torch.backends.mha.get_fastpath_enabled(), torch.cuda.is_available(),
            torch.are_deterministic_algorithms_enabled(),
        ]))  # fmt: skip
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.words += (b"process", torch.distributed.get_rank(), torch.distributed.get_world_size())
        self.hooks(vars(nn.modules.module), "_global")
        self.value(reasons.PARAMETER_RULES)
        for module in _own_modules():
            self.namespace(module, layers.HANDLERS)

    def packages(self) -> None:
        """Adds the code and the versions of the installed modules that were met."""
        names = sorted({"torch", "torch.nn.functional", *self.modules})
        for name in names:
            module = sys.modules.get(name)
            if module is not None and str(getattr(module, "__file__", "")).endswith(".py"):
                self.namespace(module)
        for root in sorted({name.partition(".")[0] for name in ("ghn_pyg", *names, *self.modules)}):
            self.package(root)


def _own_modules() -> list[types.ModuleType]:
    """This package's modules that take part in building a graph, as far as they are imported."""
    found = [data, primitives, stored]
    for package in (graphs, transforms):
        found += [item for item in list(vars(package).values()) if isinstance(item, types.ModuleType)]
    return sorted((module for module in found if module.__name__ not in _NOT_TRACING), key=_module_name)


def _given(tensor: Tensor) -> tuple[Any, ...]:
    """What a trace sees of an input: the values of ids, lengths and masks, else shape and type."""
    if tensor.is_floating_point() or tensor.is_complex() or tensor.is_meta:
        return "input", tuple(tensor.shape), tensor.dtype, None
    return "input", tuple(tensor.shape), tensor.dtype, tensor.stride(), _values(tensor)


_name = functools.cache(str)
_module_name = operator.attrgetter("__name__")


def _values(tensor: Tensor) -> Any:
    if tensor.numel() == 1:
        return tensor.item()
    if tensor.numel() * tensor.element_size() > _LARGEST:
        raise Undescribable(f"a tensor of shape {tuple(tensor.shape)}, whose values are too many to compare")
    data = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.blake2b(data.numpy().tobytes(), digest_size=16).hexdigest()
