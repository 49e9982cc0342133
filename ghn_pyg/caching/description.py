"""Describes Python values, and the code behind them, so that equal descriptions mean equal behaviour.

A description is a list of words: plain values, and tags (bytes) that say how to read what follows. Whatever cannot be
described for sure raises :class:`Undescribable`. How code is described depends on where it lives:

- The user's code: all of it, with every global name, default and closure that it loads.
- Installed packages: their version, and the code of the modules whose classes and functions are met directly. What
  lies deeper is trusted to change with the version.
- Modules of the standard library that only compute change with Python's version.
- The rest of the standard library asks the world (files, clocks, the environment, random numbers) and cannot be
  described where the user's code loads it.
"""

from __future__ import annotations

import builtins
import collections
import enum
import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
import marshal
import operator
import pathlib
import re
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import torch

from ..graphs.shadow import slots
from .bytecode import Load, digest, loads
from .installed import HEAP, Origin, function_origin, is_python_class, lookup, namespace, origin

_ASKING: Final = frozenset((
    "__import__", "breakpoint", "compile", "eval", "exec", "globals", "hash", "id", "input", "open",
))  # fmt: skip
_OPERATORS: Final = frozenset(("aten", "prim", "prims", "torchvision"))
_CLASS_NOISE: Final = frozenset((
    "__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__",
    "__dataclass_params__", "__dict__", "__doc__", "__firstlineno__", "__module__",
    "__orig_bases__", "__parameters__", "__qualname__", "__static_attributes__", "__type_params__", "__weakref__",
    "_abc_impl",
))  # fmt: skip
_CONTAINERS: Final = frozenset((
    object, dict, list, tuple, set, frozenset, str, bytes, int, float, complex,
    collections.OrderedDict, collections.defaultdict, collections.deque,
))  # fmt: skip
_LARGEST_ARRAY: Final = 1 << 16


class Undescribable(Exception):
    """Something cannot be described; the message says what, and where it was met."""


def within(place: str, fault: Undescribable) -> Undescribable:
    """The same, with one more place around it."""
    return Undescribable(f"{place}: {fault}")


class Description:
    """The words of a description, and what has been described so far: what is met again is a reference."""

    def __init__(self) -> None:
        self.words: list[Any] = []
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []  # so that the ids in ``seen`` stay taken
        self.modules: set[str] = set()  # installed ones whose classes or functions were met

    # --- values ------------------------------------------------------------------------------------------------------

    def value(self, value: Any) -> None:
        """Adds any value."""
        kind = type(value)
        if kind in _PLAIN:
            self.words.append(value)
        elif kind is tuple:
            self.items(b"tuple", value)
        elif not self.met(value):
            describe = _KINDS.get(kind)
            if describe is not None:
                describe(self, value)
            else:
                self.other(value)

    def met(self, value: Any) -> bool:
        """Whether ``value`` was described before; then the words refer to it."""
        if (place := self.seen.get(id(value))) is not None:
            self.words.append((place,))
            return True
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)
        return False

    def items(self, tag: bytes, values: Any) -> None:
        """Adds values in their order."""
        self.words += (tag, len(values))
        for value in values:
            if type(value) in _PLAIN:
                self.words.append(value)
            else:
                self.value(value)

    def pairs(self, tag: bytes, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Adds keys and values in their order."""
        self.words.append(tag)
        for key, value in pairs:
            if type(key) is str:
                self.words.append(key)
            else:
                self.value(key)
            if type(value) in _PLAIN:
                self.words.append(value)
                continue
            try:
                self.value(value)
            except Undescribable as fault:
                raise within(f"{key!r:.40}", fault) from None
        self.words.append(b"end")

    def unordered(self, values: Iterable[Any]) -> None:
        """Adds a set, whose order is an accident; what may change is no element."""
        described = []
        for value in values:
            if not _is_fixed(value):
                raise Undescribable(f"a set that holds an object of type {type(value).__name__}")
            part = Description()
            part.value(value)
            self.modules |= part.modules
            described.append(part.digest())
        self.words += (b"set", *sorted(described), b"end")

    def digest(self) -> str:
        """A hash of the words."""
        # Without references, which would depend on who else holds a value.
        return hashlib.sha256(marshal.dumps(self.words, 0)).hexdigest()

    def array(self, value: np.ndarray[Any, Any]) -> None:
        """Adds an array of numbers with its values."""
        if value.dtype.hasobject or value.nbytes > _LARGEST_ARRAY:
            raise Undescribable(f"an array of {value.dtype} of shape {value.shape}")
        self.words += (b"array", value.shape, value.strides, value.dtype.str, value.tobytes())

    def other(self, value: Any) -> None:
        """Adds an object of a class without a rule of its own."""
        if isinstance(value, type):
            self.cls(value)
        elif isinstance(value, enum.Enum):
            self.words += (b"member", value.name)
            self.known_class(type(value))
            self.value(value.value)
        elif isinstance(value, types.ModuleType):
            self.module_as_value(value)
        elif typing.get_origin(value) is not None:
            self.words += (b"type", repr(value))
            self.items(b"of", typing.get_args(value))
        elif isinstance(value, (np.dtype, torch.Size, pathlib.PurePath)):
            _text(self, value)
        elif isinstance(value, np.generic):
            self.array(np.asarray(value))
        else:
            self.instance(value)

    def instance(self, value: Any) -> None:
        """Adds an object of a Python class: the class, what it contains if it is a container, and its attributes."""
        cls: Any = type(value)
        if not all(base in _CONTAINERS or is_python_class(base) for base in cls.__mro__):
            raise Undescribable(f"an object of type {cls.__module__}.{cls.__qualname__}")
        self.words.append(b"object")
        self.known_class(cls)
        if isinstance(value, dict):
            self.pairs(b"dict", dict.items(value))
        elif isinstance(value, (list, tuple, collections.deque)):
            self.items(b"items", list(value))
        elif isinstance(value, (set, frozenset)):
            self.unordered(frozenset(value))
        elif isinstance(value, (str, bytes, int, float, complex)):
            plain = next(base for base in cls.__mro__ if base in _CONTAINERS)
            self.value(plain.__new__(plain, value))
        if isinstance(value, collections.defaultdict):
            self.value(value.default_factory)
        own = [(name, getattr(value, name)) for name in slots(cls) if hasattr(value, name)]
        self.pairs(b"attributes", [*own, *getattr(value, "__dict__", {}).items()])

    # --- code --------------------------------------------------------------------------------------------------------

    def function(self, function: types.FunctionType) -> None:
        """Adds a function: its code, and what this loads from outside."""
        home, name = function_origin(function), f"{function.__module__}.{function.__qualname__}"
        self.words += (b"function", name, digest(function.__code__))
        if home == "asks":
            raise Undescribable(f"{name} asks for what is outside of the network")
        if home != "user" and self.origin(function.__module__ or "") != "user" and lookup(function) is function:
            return  # its module is described as a whole
        self.value(function.__defaults__)
        self.value(function.__kwdefaults__)
        self.value(function.__dict__)
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self.cell(cell)
            except Undescribable as fault:
                raise within(f"{variable} in {function.__qualname__}", fault) from None
        if home != "user":
            self.origin(function.__globals__["__name__"])
            return
        for load in loads(function.__code__):
            try:
                self.load(load, function.__globals__)
            except Undescribable as fault:
                raise within(f"{'.'.join(load.path)} in {function.__qualname__}", fault) from None

    def cell(self, cell: types.CellType) -> None:
        """Adds a variable that a function closes over."""
        try:
            contents = cell.cell_contents
        except ValueError:
            self.words.append(b"unbound")
        else:
            self.value(contents)

    def load(self, load: Load, names: dict[str, Any]) -> None:
        """Adds what the user's code loads from outside."""
        self.words += (b"load", repr(load))
        first, *rest = load.path
        known = names.get("__builtins__", builtins)
        known = known if isinstance(known, dict) else vars(known)
        if load.level is not None:
            value = _imported(first, load.level, names)
        elif first in names or first in known:
            value = names[first] if first in names else known[first]
        else:
            self.words.append(b"unbound")
            return
        while rest and isinstance(value, types.ModuleType) and rest[0] in vars(value):
            value = vars(value)[rest.pop(0)]
        self.value(value)

    def module_as_value(self, module: types.ModuleType) -> None:
        """Adds a module of which any name may be used."""
        self.words += (b"module", module.__name__)
        if self.origin(module.__name__) in ("user", "asks"):
            raise Undescribable(f"the module {module.__name__} as a whole")

    def builtin(self, function: Any) -> None:
        """Adds a function or method of compiled code."""
        owner = getattr(function, "__objclass__", getattr(function, "__self__", None))
        self.words += (b"builtin", function.__qualname__)
        if owner is not None and not isinstance(owner, types.ModuleType):
            self.value(owner)
            return
        name = function.__module__ or ""
        self.words.append(name)
        if self.origin(name) in ("user", "asks") or (name == "builtins" and function.__name__ in _ASKING):
            raise Undescribable(f"{name}.{function.__name__} is compiled, or asks for what is outside of the network")

    def operator(self, function: Any) -> None:
        """Adds an operator of PyTorch's dispatcher."""
        self.words += (b"operator", str(function))
        if str(function).partition(".")[0] not in _OPERATORS:
            raise Undescribable(f"the operator {function} of an extension")

    def known_class(self, cls: type) -> None:
        """Adds a class that may have been met."""
        if not self.met(cls):
            self.cls(cls)

    def cls(self, cls: Any) -> None:
        """Adds a class: its bases and, if it is the user's, all that it defines."""
        name = f"{cls.__module__}.{cls.__qualname__}"
        self.words += (b"class", name)
        home = self.origin(cls.__module__)
        if cls.__flags__ & HEAP and lookup(cls) is not cls:  # made inside a function, or under a borrowed name
            home = "user"
        if home == "computes":
            return
        if home == "asks" or (home == "user" and not cls.__flags__ & HEAP):
            raise Undescribable(f"the class {name} is compiled, or asks for what is outside of the network")
        for base in cls.__bases__:
            self.known_class(base)
        if home == "user":
            if type(cls) is not type:
                self.known_class(type(cls))
            try:
                self.pairs(b"defines", [item for item in vars(cls).items() if item[0] not in _CLASS_NOISE])
            except Undescribable as fault:
                raise within(cls.__qualname__, fault) from None

    # --- packages ----------------------------------------------------------------------------------------------------

    def origin(self, name: str) -> Origin:
        """Where a module's code comes from; installed modules are noted."""
        found = origin(name)
        if found == "installed":
            self.modules.add(name)
        return found

    def namespace(self, module: types.ModuleType, leaving_out: Any = None) -> None:
        """Adds what an installed module holds, but for one dictionary."""
        found = namespace(module, leaving_out)
        self.words += (b"namespace", module.__name__, found.digest)
        for value in found.foreign:
            self.value(value)

    def package(self, name: str) -> None:
        """Adds the version of an installed package."""
        version = getattr(sys.modules.get(name), "__version__", None)
        try:
            self.words += (b"version", name, str(version or importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            raise Undescribable(f"the package {name} has no version") from None


def _imported(name: str, level: int, names: dict[str, Any]) -> types.ModuleType:
    """The module that an import statement inside a function names."""
    module = sys.modules.get(importlib.util.resolve_name("." * level + name, names.get("__package__")))
    if module is None:
        raise Undescribable("a module that is not imported yet")
    return module


def _is_fixed(value: Any) -> bool:
    """Whether a value cannot change, so that it does not matter who else holds it."""
    if isinstance(value, (tuple, frozenset)):
        return all(map(_is_fixed, value))
    return type(value) in _PLAIN or isinstance(value, (*_TEXTS, bytes, type, enum.Enum, *_FUNCTIONS))


def _wrapper(description: Description, value: Any) -> None:
    description.items(type(value).__name__.encode(), (value.__wrapped__,))


def _text(description: Description, value: Any) -> None:
    description.words += (b"text", type(value).__name__, repr(value))


def _named(description: Description, value: Any) -> None:
    name = getattr(value, "__qualname__", None) or getattr(value, "name", None) or value.__name__
    description.words += (b"named", type(value).__name__, name)


class _Named(typing.NamedTuple):
    item: None


_PLAIN: Final = frozenset((str, int, float, bool, complex, type(None)))
"""Values that are words themselves."""

_TEXTS: Final = (range, type(...), type(NotImplemented), torch.dtype, torch.device, torch.layout, torch.memory_format)
"""Values that are what they read like."""

_FUNCTIONS: Final = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
)  # fmt: skip

_KINDS: Final[Mapping[type, Callable[[Description, Any], None]]] = {
    **dict.fromkeys(_TEXTS, _text),
    bytes: lambda description, value: description.words.extend((b"bytes", value)),
    list: lambda description, value: description.items(b"list", value),
    dict: lambda description, value: description.pairs(b"dict", value.items()),
    types.MappingProxyType: lambda description, value: description.pairs(b"mapping", value.items()),
    types.SimpleNamespace: lambda description, value: description.pairs(b"namespace", vars(value).items()),
    collections.OrderedDict: lambda description, value: description.pairs(b"ordered", value.items()),
    set: Description.unordered,
    frozenset: Description.unordered,
    slice: lambda description, value: description.items(b"slice", (value.start, value.stop, value.step)),
    type: Description.cls,
    np.ndarray: Description.array,
    types.FunctionType: Description.function,
    types.MethodType: lambda description, value: description.items(b"method", (value.__func__, value.__self__)),
    functools.partial: lambda description, value: description.items(
        b"partial", (value.func, value.args, value.keywords, vars(value))
    ),
    property: lambda description, value: description.items(b"property", (value.fget, value.fset, value.fdel)),
    functools.cached_property: lambda description, value: description.items(b"cached", (value.func,)),
    **dict.fromkeys((staticmethod, classmethod, functools._lru_cache_wrapper), _wrapper),
    **dict.fromkeys(
        (types.BuiltinFunctionType, types.MethodWrapperType, types.MethodDescriptorType, types.WrapperDescriptorType,
         types.ClassMethodDescriptorType),
        Description.builtin,
    ),
    **dict.fromkeys((types.MemberDescriptorType, types.GetSetDescriptorType, logging.Logger), _named),
    **dict.fromkeys((torch._ops.OpOverload, torch._ops.OpOverloadPacket), Description.operator),
    **dict.fromkeys(
        (operator.itemgetter, operator.attrgetter, operator.methodcaller, type(_Named.item)),
        lambda description, value: description.items(type(value).__name__.encode(), value.__reduce__()[1]),
    ),
    weakref.ref: lambda description, value: description.items(b"reference", (value(), value.__callback__)),
    re.Pattern: lambda description, value: description.items(b"pattern", (value.pattern, value.flags)),
    typing.TypeVar: _named,
}  # fmt: skip
"""How values of other types are described."""
