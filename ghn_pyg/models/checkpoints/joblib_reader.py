"""Reads joblib dumps of tensors, which are pickles, without running anything that they ask for.

A pickle is a program. This reader interprets the instructions and the four functions that a state dict needs and
refuses all others; a file never reaches an object of the Python interpreter.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import IO, Any, Final, cast

import torch
from torch import Tensor

from .torch_reader import LEGACY_PICKLES, LEGACY_START, check_nesting, load_weights

# Float weights hardly compress. A file that inflates beyond both limits is made to fill the memory.
_MAX_RATIO: Final = 20
_MAX_SMALL_BYTES: Final = 1 << 30

_MAX_DIMENSIONS: Final = 8

_COMPRESSED: Final = (b"\x78", b"\x1f\x8b")  # zlib, gzip


def load_joblib(path: str | os.PathLike[str]) -> Any:
    """Reads what ``joblib.dump`` wrote: nested dictionaries of tensors, numbers and strings.

    Reads plain, zlib- and gzip-compressed files, but no NumPy arrays, which joblib stores beside the pickle.
    """
    with open(path, "rb") as file:
        compressed = file.read(2).startswith(_COMPRESSED)
        file.seek(0)
        if compressed:
            content = _inflate(file.read())
            return _interpret(io.BytesIO(content), len(content))
        return _interpret(file, Path(path).stat().st_size)


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # zlib or gzip
    content = stream.decompress(data, max(_MAX_SMALL_BYTES, _MAX_RATIO * len(data)))
    if not stream.eof:
        raise EOFError("the compressed file ends early, or inflates beyond what weights do")
    if stream.unused_data:
        raise pickle.UnpicklingError("the compressed file has bytes after its end")
    return content


def _interpret(file: IO[bytes], size: int) -> Any:
    content = _Interpreter().run(_Bounded(file, size))
    if file.read(1):
        raise pickle.UnpicklingError("the file has bytes after its end")
    return content


class _Bounded:
    """The reads of a pickle, none beyond the size of the file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        # Before the read, which would allocate as much memory as the file claims to need.
        if size > self._left:
            raise EOFError(f"the file ends early: {size} more bytes announced, at most {self._left} left")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        return self._file.readline(256)


def _load_storage(data: bytes) -> Any:
    """Loads the bytes of a storage, a legacy ``torch.save`` file within the dump."""
    if not data.startswith(LEGACY_START):
        raise pickle.UnpicklingError(f"expected a tensor's storage, got bytes that start with {data[:16]!r}")
    file = io.BytesIO(data)
    check_nesting(file, LEGACY_PICKLES)
    file.seek(0)
    return load_weights(file)


def _check_storage(value: Any) -> torch.storage.TypedStorage:
    if not isinstance(value, torch.storage.TypedStorage):
        raise pickle.UnpicklingError(f"expected a tensor's storage, got {type(value).__name__}")
    return value


def _rebuild_parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError(f"expected a parameter's tensor, got {type(data).__name__}")
    return data


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    flat = torch.empty(0, dtype=_check_storage(storage).dtype, device="cpu").set_(storage)
    if len(size) > _MAX_DIMENSIONS or any(type(number) is not int for number in (offset, *size, *stride)):
        raise pickle.UnpicklingError(f"a tensor needs integers and at most {_MAX_DIMENSIONS} dimensions")
    # Strides of 0 would make a tensor of any size out of one number; as_strided checks the rest.
    if math.prod(size) > flat.numel():
        raise pickle.UnpicklingError(f"a tensor of size {size} cannot lie in a storage of {flat.numel()} elements")
    return flat.as_strided(size, stride, offset)


_FUNCTIONS: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("collections", "OrderedDict"): lambda: {},
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _check_storage,  # the interpreter has loaded the bytes already
}


class _Interpreter:
    """A pickle's stack machine with the instructions of a state dict and no others."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: _Bounded) -> Any:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], file)):
            if opcode.name == "STOP":
                break
            self.execute(opcode.name, argument)
        return self.stack.pop()

    def execute(self, name: str, argument: Any) -> None:
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
                # The only bytes in a state dict are storages. Loaded here, the bytes are freed at once; the memo
                # would keep all of them.
                stack.append(_load_storage(argument))
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self.pop({"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}[name])))
            case "TUPLE":
                stack.append(tuple(self.pop()))
            case "EMPTY_LIST" | "EMPTY_DICT":
                stack.append([] if name == "EMPTY_LIST" else {})
            case "APPEND" | "APPENDS":
                self.append(self.pop(1 if name == "APPEND" else None))
            case "SETITEM" | "SETITEMS":
                self.set_items(self.pop(2 if name == "SETITEM" else None))
            case "MEMOIZE" | "BINPUT" | "LONG_BINPUT":
                self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self.find_function(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(self.find_function(*self.pop(2)))
            case "REDUCE":
                self.call(*self.pop(2))
            case "BUILD":
                stack.pop()  # attributes, of which a state dict has its version numbers
            case _:
                raise pickle.UnpicklingError(f"the file uses {name}, an instruction that no checkpoint needs")

    def pop(self, count: int | None = None) -> list[Any]:
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
        # Keys must be plain: hashing nested tuples of a hostile file can overflow the interpreter's stack.
        if not isinstance(self.stack[-1], dict) or any(type(key) not in (str, int) for key in values[::2]):
            raise pickle.UnpicklingError("only a dictionary can be filled, and its keys must be strings or integers")
        self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def find_function(self, module: Any, name: Any) -> Callable[..., Any]:
        # Only text may get into the message: printing nested lists can take for ever.
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("a function's name must be text")
        if (module, name) not in _FUNCTIONS:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no checkpoint needs")
        return _FUNCTIONS[module, name]

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, FunctionType) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("only the functions that rebuild tensors can be called")
        self.stack.append(function(*arguments))
