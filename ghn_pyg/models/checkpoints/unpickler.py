"""Reads joblib dumps of tensors without running anything that they ask for.

A pickle is a program. This reader knows the instructions and the four functions that a dumped state dict needs,
refuses all others, and never lets a file reach the interpreter's own objects.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import IO, Any, Final, cast

import torch
from torch import Tensor

__all__ = ["LEGACY_PICKLES", "LEGACY_START", "check_nesting", "load_joblib", "load_weights"]

LEGACY_START: Final = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""The pickled number that torch.save files began with before torch 1.6, and storages within a pickle still do."""

LEGACY_PICKLES: Final = 5
"""How many pickles such a file has: that number, a version, facts on the system, the content, keys of storages."""

# Float weights hardly compress. A file that grows beyond both limits is made to fill the memory.
_MAX_RATIO: Final = 20
_MAX_SMALL_BYTES: Final = 1 << 30

_MAX_DIMENSIONS: Final = 8

# GHN-3-XL's training checkpoint has some six thousand.
_MAX_TUPLES: Final = 20_000

# How PyTorch names what it refuses to load.
_GLOBAL: Final = re.compile(r"GLOBAL ([\w.]+) (?:was not an allowed global|whose module)", re.ASCII)

_COMPRESSED: Final = (b"\x78", b"\x1f\x8b")  # zlib, gzip


def load_joblib(path: str | os.PathLike[str]) -> Any:
    """Reads what ``joblib.dump`` wrote: nested dictionaries of tensors, numbers and strings.

    Plain and zlib- or gzip-compressed files are understood. Arrays that joblib stores next to the pickle are not:
    a GHN's checkpoint holds tensors.

    Args:
        path: File to read.

    Raises:
        pickle.UnpicklingError: If the file asks for anything that a state dict does not need.
        EOFError: If the file ends early or claims more than it holds.
        Exception: Whatever else a damaged file leads to, such as :class:`KeyError` or :class:`RuntimeError`.

    Example:
        >>> joblib.dump({"weight": torch.ones(3)}, "weights.pt")  # doctest: +SKIP
        >>> load_joblib("weights.pt")["weight"].shape  # doctest: +SKIP
        torch.Size([3])
    """
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        compressed = file.read(2).startswith(_COMPRESSED)
        file.seek(0)
        if compressed:
            with io.BufferedReader(_Inflated(file), 1 << 20) as inflated:
                return _load(inflated, max(_MAX_SMALL_BYTES, _MAX_RATIO * size))
        return _load(file, size)


def _load(file: IO[bytes] | io.BufferedReader, size: int) -> Any:
    content = _Machine().run(_Bounded(file, size))
    # The end of a compressed stream is also where its checksum is compared.
    if file.read(1):
        raise pickle.UnpicklingError("the file goes on after its end")
    return content


def check_nesting(file: IO[bytes], pickles: int) -> None:
    """Refuses pickles whose tuples may nest so deeply that hashing one exhausts the interpreter's stack.

    Args:
        file: Where the pickles begin.
        pickles: How many there are, one after the other.

    Raises:
        pickle.UnpicklingError: If there are too many tuples.
        ValueError: If the pickles are damaged.

    Example:
        >>> check_nesting(io.BytesIO(pickle.dumps((1, (2, 3)))), pickles=1)
    """
    tuples = 0
    for _ in range(pickles):
        for opcode, _, _ in pickletools.genops(file):
            tuples += opcode.name.startswith("TUPLE")
            if tuples > _MAX_TUPLES:
                raise pickle.UnpicklingError(f"more than {_MAX_TUPLES} tuples, which no checkpoint needs")


def load_weights(file: str | os.PathLike[str] | IO[bytes], *, mmap: bool | None = None) -> Any:
    """``torch.load`` of tensors and plain values, on the CPU.

    Args:
        file: What ``torch.save`` wrote.
        mmap: Whether to map its tensors into memory.

    Raises:
        pickle.UnpicklingError: If the file asks for anything else. PyTorch's own message advises to run all that the
            file contains, so this one says what that is instead.
        Exception: Whatever else a damaged file leads to.

    Example:
        >>> file = io.BytesIO()
        >>> torch.save({"weight": torch.ones(3)}, file)
        >>> load_weights(io.BytesIO(file.getvalue()))["weight"].shape
        torch.Size([3])
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        asked = _GLOBAL.search(str(error))
        wanted = f"asks for {asked[1]}, which no checkpoint needs" if asked else None
        reason = wanted or "is not made of tensors and plain values"
        raise pickle.UnpicklingError(f"the file {reason}") from None


class _Bounded:
    """The two ways in which a pickle is read, refusing to read more than the file can hold."""

    def __init__(self, file: IO[bytes] | io.BufferedReader, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        # Ahead of the read, which would set aside as much memory as the file claims to need.
        if size > self._left:
            raise EOFError(f"the file ends early: {size} more bytes announced, at most {self._left} left")
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError(f"the file ends early: {size} more bytes announced, {len(data)} left")
        self._left -= size
        return data

    def readline(self) -> bytes:
        return self._file.readline(256)


class _Inflated(io.RawIOBase):
    """The content of a zlib or gzip stream."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = b""
        while not chunk and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(1 << 20)
            chunk = self._inflate.decompress(packed, len(buffer))
            if not packed and not chunk:
                raise EOFError("the compressed file ends early")
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _nested(data: bytes) -> Any:
    if not data.startswith(LEGACY_START):
        raise pickle.UnpicklingError(f"expected a tensor's storage, got bytes that start with {data[:16]!r}")
    file = io.BytesIO(data)
    check_nesting(file, LEGACY_PICKLES)
    file.seek(0)
    return load_weights(file)


def _storage(value: Any) -> torch.storage.TypedStorage:
    if not isinstance(value, torch.storage.TypedStorage):
        raise pickle.UnpicklingError(f"expected a tensor's storage, got {type(value).__name__}")
    return value


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError(f"expected a parameter's tensor, got {type(data).__name__}")
    return data


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    flat = torch.empty(0, dtype=_storage(storage).dtype).set_(storage)
    if len(size) > _MAX_DIMENSIONS or any(type(number) is not int for number in (offset, *size, *stride)):
        raise pickle.UnpicklingError(f"a tensor needs integers and at most {_MAX_DIMENSIONS} dimensions")
    # Strides of 0 would make a tensor of any size out of one number; as_strided checks the rest.
    if math.prod(size) > flat.numel():
        raise pickle.UnpicklingError(f"a tensor of size {size} cannot lie in a storage of {flat.numel()} elements")
    return flat.as_strided(size, stride, offset)


_FUNCTIONS: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("collections", "OrderedDict"): lambda: {},
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,  # the bytes are already loaded where they are read
}


class _Machine:
    """A pickle's stack machine with the instructions of a state dict and no others."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: _Bounded) -> Any:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], file)):
            if opcode.name == "STOP":
                break
            self.step(opcode.name, argument)
        return self.stack.pop()

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINBYTES" | "BINBYTES8" | "SHORT_BINBYTES":
                # Nothing in a state dict is bytes but storages, each a torch.save within the dump. Loaded here,
                # the bytes are free again at once, where the memo would keep all of them.
                stack.append(_nested(argument))
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self.take({"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}[name])))
            case "TUPLE":
                stack.append(tuple(self.take()))
            case "EMPTY_LIST" | "EMPTY_DICT":
                stack.append([] if name == "EMPTY_LIST" else {})
            case "APPEND" | "APPENDS":
                self.append(self.take(1 if name == "APPEND" else None))
            case "SETITEM" | "SETITEMS":
                self.set_items(self.take(2 if name == "SETITEM" else None))
            case "MEMOIZE" | "BINPUT" | "LONG_BINPUT":
                self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self.function(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(self.function(*self.take(2)))
            case "REDUCE":
                self.call(*self.take(2))
            case "BUILD":
                stack.pop()  # attributes: a state dict keeps its versions there, which nobody needs
            case _:
                raise pickle.UnpicklingError(f"the file uses {name}, an instruction that no checkpoint needs")

    def take(self, count: int | None = None) -> list[Any]:
        """Pops the last ``count`` values, or all above the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < 0:
            raise pickle.UnpicklingError("an instruction lacks its values")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise pickle.UnpicklingError(f"only a list can be appended to, got {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(values)

    def set_items(self, values: list[Any]) -> None:
        # Keys must be plain: hashing what a hostile file nests can exhaust the interpreter's stack.
        if not isinstance(self.stack[-1], dict) or any(type(key) not in (str, int) for key in values[::2]):
            raise pickle.UnpicklingError("only a dictionary can be filled, and its keys must be strings or integers")
        self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def function(self, module: Any, name: Any) -> Callable[..., Any]:
        # Nothing but text may get into the message: nested lists can be made to print for ever.
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("a function's name must be text")
        if (module, name) not in _FUNCTIONS:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no checkpoint needs")
        return _FUNCTIONS[module, name]

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, FunctionType) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("only the functions that rebuild tensors can be called")
        self.stack.append(function(*arguments))
