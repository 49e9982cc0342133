"""Where Python code comes from, and what installed modules hold."""

from __future__ import annotations

import functools
import hashlib
import itertools
import operator
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from . import bytecode

Origin = Literal["user", "installed", "computes", "asks"]
"""The user's code, an installed package, a module of the standard library that only computes, or one that does not."""

_COMPUTING: Final = frozenset((
    "abc", "bisect", "builtins", "cmath", "collections", "collections_abc", "contextlib", "copy", "copyreg",
    "dataclasses", "decimal", "enum", "fractions", "functools", "heapq", "itertools", "json", "keyword",
    "logging", "math", "numbers", "ntpath", "operator", "posixpath", "re", "statistics", "string", "textwrap", "types",
    "typing", "warnings",
))  # fmt: skip
_SITES: Final = frozenset(("site-packages", "dist-packages"))
_PLAIN: Final = frozenset((str, bytes, int, float, bool, complex, type(None)))
_PATHS: Final = 1 << 12
_IMMUTABLE: Final = 1 << 8  # CPython's flag of classes that cannot be changed
HEAP: Final = 1 << 9
"""CPython's flag of classes that are made while a program runs."""


def origin(name: str) -> Origin:
    """Where the code of a module comes from.

    Example:
        >>> import torch
        >>> [origin(name) for name in ("math", "os", "torch.nn", "__main__")]
        ['computes', 'asks', 'installed', 'user']
    """
    root = name.partition(".")[0]
    if root == "__main__":  # it may be started by an installed program, and is the user's all the same
        return "user"
    if root in sys.stdlib_module_names:
        return "computes" if root.lstrip("_") in _COMPUTING else "asks"
    module = sys.modules.get(root)
    path = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    return "installed" if root == "ghn_pyg" or _in_site(path) else "user"


@functools.lru_cache(_PATHS)
def _in_site(path: str) -> bool:
    return not _SITES.isdisjoint(pathlib.PurePath(path).parts)


def function_origin(function: types.FunctionType) -> Origin:
    """Where a function was written; decorators may say something else in ``__module__``."""
    names = function.__globals__
    name, file = names.get("__name__", ""), names.get("__file__", "")
    module = sys.modules.get(name)
    if module is not None and (vars(module) is names or (file == function.__code__.co_filename and _in_site(file))):
        return origin(name)
    return "user"


def lookup(item: Any) -> Any:
    """What the module of a class or function has under its name."""
    found: Any = sys.modules.get(item.__module__)
    for name in item.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    return found


def is_python_class(cls: type) -> bool:
    """Whether a Python class statement made a class: its objects have no state but attributes."""
    own = cls.__dict__.get("__slots__", ())
    count = 1 if isinstance(own, str) else len(tuple(own))
    return (
        bool(cls.__flags__ & HEAP)
        and not cls.__flags__ & _IMMUTABLE
        and not isinstance(cls.__dict__.get("__new__"), types.BuiltinFunctionType)
        and cls.__basicsize__ - cls.__base__.__basicsize__ <= 8 * count + 16  # type: ignore[union-attr]
    )


class Namespace(NamedTuple):
    """What a module held when it was read.

    Args:
        digest: A hash of the code of its functions and of the classes that it defines, and of its numbers.
        foreign: The user's functions and classes in it, as patches or in its registries.
        contents: What was read.
    """

    digest: str
    foreign: list[Any]
    contents: Contents


class Contents:
    """The dictionaries that a module's code finds things in, and what they hold now.

    These are its own, those of its classes and of other objects that it holds, and dictionaries in these.

    Args:
        holders: The dictionaries.
    """

    def __init__(self, holders: list[Mapping[Any, Any]]) -> None:
        self.holders = holders
        self.names = list(map(tuple, holders))
        self.values = list(self._values())
        self.functions = [value for value in self.values if type(value) is types.FunctionType]
        self.codes = list(map(_code, self.functions))
        self._ids = list(map(id, self.values)), list(map(id, self.codes))

    def _values(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(holder.values() for holder in self.holders)

    def unchanged(self) -> bool:
        """Whether they still hold the very same objects under the same names, and functions the same code."""
        return (list(map(id, self._values())), list(map(id, map(_code, self.functions)))) == self._ids and list(
            map(tuple, self.holders)
        ) == self.names


_code = operator.attrgetter("__code__")
_NAMESPACES: Final[dict[str, Namespace]] = {}


def namespace(module: types.ModuleType, leaving_out: Any = None) -> Namespace:
    """What a module holds now, but for one dictionary; it is read again only if something else is there than before."""
    known = _NAMESPACES.get(module.__name__)
    if known is None or known.contents.holders[0] is not vars(module) or not known.contents.unchanged():
        # What it holds is noted before it is read, so that a change meanwhile is seen the next time.
        holders = {id(holder): holder for holder in _holders(module) if holder is not leaving_out}
        contents = Contents(list(holders.values()))
        known = _NAMESPACES[module.__name__] = _read(module, contents)
    return known


def _holders(module: types.ModuleType) -> Iterator[Mapping[Any, Any]]:
    yield vars(module)
    for value in list(vars(module).values()):
        kind = type(value)
        if kind is dict:
            yield value
        elif isinstance(value, type):
            if value.__module__ == module.__name__ and value.__flags__ & HEAP:  # others cannot be changed
                yield vars(value)
                yield from _dictionaries(vars(value))
        elif kind not in _PLAIN and kind is not types.FunctionType and not isinstance(value, types.ModuleType):
            own = getattr(value, "__dict__", None)
            if type(own) is dict:
                yield own
                yield from _dictionaries(own)
            yield from _dictionaries(vars(kind))


def _dictionaries(holder: Mapping[Any, Any]) -> list[dict[Any, Any]]:
    return [value for value in list(holder.values()) if type(value) is dict]


def _read(module: types.ModuleType, contents: Contents) -> Namespace:
    reader = _Reader()
    for name, value in sorted(vars(module).items()):
        # Texts may be of this process or machine alone: session ids, folders.
        if not name.startswith("__") and type(value) not in (str, bytes):
            reader.words.append(repr(name))
            reader.value(value, module.__name__)
    for registry in contents.holders[1:]:
        if type(registry) is dict:
            reader.registry(registry)
    text = "\n".join(reader.words)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Namespace(digest, reader.foreign, contents)


class _Reader:
    """Collects the code of an installed module, without following what it calls elsewhere."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.foreign: list[Any] = []
        self.reading: set[int] = set()

    def value(self, value: Any, home: str = "") -> None:
        """Adds code or a plain value; other values are the version's business. ``home`` is the module that is read."""
        kind = type(value)
        if kind in _PLAIN:
            self.words.append(repr(value))
        elif kind is types.FunctionType:
            self.function(value)
        elif isinstance(value, type):
            self.cls(value, home)
        elif kind is types.BuiltinFunctionType:
            self.words.append(f"builtin {value.__module__} {value.__qualname__}")
        else:
            self.words.append(kind.__name__)
            for part in _parts(value):
                self.value(part)

    def registry(self, registry: dict[Any, Any]) -> None:
        """Adds the functions and classes of a dictionary; their order is an accident where keys come from a set."""
        before, entries = self.words, []
        for key, value in list(registry.items()):
            if isinstance(value, (types.FunctionType, type)):
                self.words = [repr(key) if type(key) in _PLAIN else getattr(key, "__qualname__", "")]
                self.value(value)
                entries.append(self.words)
        self.words = before
        for words in sorted(entries):
            self.words += words

    def function(self, function: types.FunctionType) -> None:
        self.words.append(f"function {function.__module__} {function.__qualname__}")
        if function_origin(function) == "user":
            self.foreign.append(function)
        elif id(function) not in self.reading:  # it may enclose itself
            self.reading.add(id(function))
            self.words.append(bytecode.digest(function.__code__))
            for value in (*(function.__defaults__ or ()), *_enclosed(function)):
                self.value(value)
            self.reading.remove(id(function))

    def cls(self, cls: type, home: str) -> None:
        self.words.append(f"class {cls.__module__} {cls.__qualname__}")
        if cls.__module__ == home:
            for name, value in list(vars(cls).items()):
                if name not in ("__doc__", "__module__", "__dict__", "__weakref__"):
                    self.words.append(repr(name))
                    self.value(value)
        elif origin(cls.__module__) == "user":
            self.foreign.append(cls)


def _parts(value: Any) -> tuple[Any, ...]:
    """The functions that a wrapper of a function holds."""
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    if isinstance(value, (staticmethod, classmethod, types.MethodType)):
        return (value.__func__,)
    if isinstance(value, functools.partial):
        return (value.func,)
    if isinstance(value, (functools._lru_cache_wrapper)):
        return (value.__wrapped__,)
    return ()


def _enclosed(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            yield None
