"""Reads tensors from files of ``torch.save`` and of joblib, which are pickles, without running what they ask for.

A pickle is a program. This reader interprets the instructions and the few functions that checkpoints need, and refuses
all others. A file never reaches an object of the Python interpreter, and takes no more memory than twice its size.
"""

from __future__ import annotations

import functools
import io
import math
import mmap
import os
import pickle
import pickletools
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import IO, Any, Final, TypeVar, cast

import torch
from torch import Tensor

_MAX_STEPS: Final = 2_000_000
"""Cost of all instructions: 16 for each, and the length of its text. GHN-3-XL's training checkpoint needs a third."""

_MAX_LIST_BYTES: Final = 1 << 20
"""Bytes of an archive's list of records, some ten thousand. GHN-3-XL's training checkpoint has a thousand."""

# Float weights hardly compress. A file that inflates beyond both limits is made to fill the memory.
_MAX_RATIO: Final = 4
_MAX_SMALL_BYTES: Final = 1 << 25

_MAX_DIMENSIONS: Final = 8
_ALIGNMENT: Final = 8
"""Bytes of the largest number."""

_LEGACY_START: Final = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""The pickled magic number of torch.save files before torch 1.6, and of storages within a joblib dump."""

_TYPES: Final = {
    **{"DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16},
    **{"BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ByteStorage": torch.uint8, "BoolStorage": torch.bool, "ComplexFloatStorage": torch.complex64},
}
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES: Final = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "TUPLE": None}

_Functions = dict[tuple[str, str], Callable[..., Any]]
_Load = Callable[[torch.dtype, str, int], Tensor]
_Kind = TypeVar("_Kind")


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Reads what ``torch.save`` or ``joblib.dump`` wrote: dictionaries and lists of tensors and plain values.

    Dumps of joblib may be compressed with zlib or gzip. Tensors of recent ``torch.save`` files are mapped into memory;
    changing them leaves the file alone, but a file that is written to, or cut, while its tensors are in use ends the
    process; replace it with another one, as our writers do. An ``argparse.Namespace``, which published training code
    saves, becomes an empty dictionary.

    Raises:
        Exception: Of any kind, if the file is damaged or asks for more than a checkpoint needs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"weight": torch.ones(3), "epoch": 5}, f"{folder}/ghn.pt")
        ...     read_pickle(f"{folder}/ghn.pt")
        {'weight': tensor([1., 1., 1.]), 'epoch': 5}
    """
    if not Path(path).stat().st_size:
        raise EOFError("got an empty file, a pipe or a device")  # opening the latter could block for ever
    with open(path, "rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    start, load = bytes(content[:16]), None
    if start.startswith(b"PK"):
        content, load = _open_archive(path, content)
    elif bytes(content[257:262]) == b"ustar":
        raise pickle.UnpicklingError("got a tar archive, a format of old PyTorch; save the state dict with a newer one")
    elif start.startswith((b"\x78", b"\x1f\x8b")):  # zlib, gzip
        content = _inflate(content)
    elif not start.startswith(b"\x80"):
        raise pickle.UnpicklingError(f"got a file that starts with {start!r}")
    cursor, pickles = _Cursor(content), _Pickles(len(content) if load is None else os.path.getsize(path))
    value = pickles.read_legacy(cursor) if start.startswith(_LEGACY_START) else pickles.read(cursor, load)
    if cursor.rest:
        raise pickle.UnpicklingError("the file has bytes after its end")
    return value


def _inflate(data: memoryview) -> memoryview:
    stream, content = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32), bytearray()  # zlib or gzip
    limit = max(_MAX_SMALL_BYTES, _MAX_RATIO * len(data))
    while data and not stream.eof and len(content) <= limit:
        content += stream.decompress(data[: 1 << 14])
        data = data[1 << 14 :]
    if not stream.eof:
        raise EOFError("the compressed file ends early, or inflates beyond what weights do")
    if stream.unused_data or data:
        raise pickle.UnpicklingError("the compressed file has bytes after its end")
    return memoryview(content)


class _ArchiveFile(io.FileIO):
    """The file of an archive. zipfile reads the list of records at once, as long as the file says that it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_LIST_BYTES:
            raise pickle.UnpicklingError(f"its list of records has {size:,} bytes, which no checkpoint needs")
        return super().read(size)


def _open_archive(path: str | os.PathLike[str], content: memoryview) -> tuple[memoryview, _Load]:
    """The pickle of a ``torch.save`` file, a zip archive, and a function that loads its storages."""
    with _ArchiveFile(path) as file, zipfile.ZipFile(cast(IO[bytes], file)) as archive:
        infos = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "constants.pkl" in infos:
            raise pickle.UnpicklingError("got a TorchScript archive, which holds code; save the model's state dict")
        folders = {info.filename.partition("/")[0] for info in archive.infolist()}
        if "data.pkl" not in infos or len(folders) > 1 or len({*map(str.lower, infos)}) < len(archive.infolist()):
            raise pickle.UnpicklingError("expected an archive of one folder, with data.pkl and each record once")
        # torch.save never compresses, and compressed tensors cannot be mapped into memory.
        if any(info.compress_type or info.compress_size != info.file_size for info in infos.values()):
            raise pickle.UnpicklingError("its records are compressed, expected them as torch.save stores them")
        if sum(info.file_size for info in infos.values()) > len(content):
            raise pickle.UnpicklingError("its records overlap")
        if damaged := archive.testzip():  # compares names, sizes and checksums
            raise pickle.UnpicklingError(f"its record {damaged!r} does not fit its checksum")
    records = {}
    for name, info in infos.items():
        start = info.header_offset + 30 + sum(struct.unpack_from("<HH", content, info.header_offset + 26))
        records[name] = content[start : start + info.file_size]
    _check_byte_order(bytes(records.get("byteorder", b"little")) == b"little")

    @functools.cache  # many tensors may lie in a storage that has to be copied
    def numbers(key: str) -> Tensor:
        data = records[f"data/{key}"]
        flat = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        return flat.clone() if flat.data_ptr() % _ALIGNMENT else flat

    def load(dtype: torch.dtype, key: str, count: int) -> Tensor:
        if (size := len(numbers(key))) != count * dtype.itemsize:
            raise EOFError(f"its record data/{key} has {size:,} bytes, expected {count * dtype.itemsize:,}")
        return numbers(key).view(dtype)

    return records["data.pkl"], load


def _check_byte_order(little: bool) -> None:
    if little is not (sys.byteorder == "little"):
        raise pickle.UnpicklingError("the file has the byte order of another kind of machine; convert it there")


def _expect(kind: type[_Kind], value: Any) -> _Kind:
    # Only types get into messages: printing nested lists of a hostile file can take for ever.
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f"expected {kind.__name__.strip('_').lower()}, got {type(value).__name__}")
    return value


class _Cursor:
    """Reads bytes in memory, without copying them, and never beyond their end, whatever a file announces."""

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest

    def read(self, size: int) -> Any:
        if size > len(self.rest):
            raise EOFError(f"the file ends early: {size:,} more bytes announced, {len(self.rest):,} left")
        part, self.rest = self.rest[:size], self.rest[size:]
        return bytes(part) if size == 1 else part

    def readline(self) -> bytes:
        return bytes(self.read(bytes(self.rest[:256]).find(b"\n") + 1))


class _Storage:
    """The numbers of one or more tensors."""

    def __init__(self, flat: Tensor) -> None:
        self.flat = flat


class _Pickles:
    """Interprets the pickles of one file, with one budget for all of them."""

    def __init__(self, size: int) -> None:
        self._steps = _MAX_STEPS
        self._bytes = 2 * size  # of storages, and of the tensors in them: views of one storage would be copied later
        self._functions: _Functions = {
            ("collections", "OrderedDict"): lambda: {},
            ("argparse", "Namespace"): lambda: {},
            ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: self._rebuild(*arguments),
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: _expect(Tensor, data),
            ("torch.storage", "_load_from_bytes"): lambda data: self.read_legacy(_Cursor(memoryview(data))),
        }

    def read(self, cursor: _Cursor, load: _Load | None = None) -> Any:
        """The value of one pickle; ``load`` returns a storage by its type, key and number of elements."""
        machine = _Machine(self._functions, load)
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], cursor)):
            self._steps -= 16 + (len(argument) if isinstance(argument, str) else 0)
            if self._steps < 0:
                raise pickle.UnpicklingError("it has more instructions, or longer names, than a checkpoint needs")
            machine.execute(opcode.name, argument)
        return machine.stack.pop()

    def read_legacy(self, cursor: _Cursor) -> Any:
        """Reads ``torch.save`` of before torch 1.6: five pickles, and the storages that the fourth refers to."""
        if cursor.read(len(_LEGACY_START)) != _LEGACY_START:
            raise pickle.UnpicklingError("expected a tensor's storage, a file of torch.save before torch 1.6")
        storages: dict[str, Tensor] = {}

        def load(dtype: torch.dtype, key: str, count: int) -> Tensor:
            if key not in storages:
                self._spend(count, dtype)
                storages[key] = torch.empty(count, dtype=dtype, device="cpu")
            return storages[key]

        _, system = self.read(cursor), _expect(dict, self.read(cursor))
        _check_byte_order(system["little_endian"])
        value = self.read(cursor, load)
        for key in self.read(cursor):
            flat = storages.pop(key)
            if int.from_bytes(cursor.read(8), "little") != len(flat):
                raise EOFError("a storage has another size than its tensors need")
            if len(flat):
                flat.view(torch.uint8).copy_(torch.frombuffer(cursor.read(flat.nbytes), dtype=torch.uint8))
        if storages:
            raise EOFError(f"{len(storages)} storages are missing")
        return value

    def _spend(self, count: int, dtype: torch.dtype) -> None:
        self._bytes -= count * dtype.itemsize
        if self._bytes < 0:
            raise pickle.UnpicklingError("its tensors are larger than the file")

    def _rebuild(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        flat = _expect(_Storage, storage).flat
        if len(size) > _MAX_DIMENSIONS or len(size) != len(stride):
            raise pickle.UnpicklingError(f"a tensor has at most {_MAX_DIMENSIONS} dimensions, with a stride each")
        if any(type(number) is not int or number < 0 for number in (offset, *size, *stride)):
            raise pickle.UnpicklingError("the sizes, strides and offset of a tensor are natural numbers")
        end = 1 + offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        # Strides of 0 would make a tensor of any size out of one number.
        if 0 not in size and max(end, math.prod(size)) > len(flat):
            raise pickle.UnpicklingError(f"a tensor of size {size} is not inside of its storage")
        self._spend(math.prod(size), flat.dtype)
        return flat.as_strided(size, stride, offset)


class _Machine:
    """A pickle's stack machine with the instructions of a state dict and no others."""

    def __init__(self, functions: _Functions, load: _Load | None) -> None:
        self.functions = functions
        self.load = load
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def execute(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINBYTES" | "BINBYTES8" | "SHORT_BINBYTES":
                stack.append(argument)  # a part of the file, not a copy
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(_CONSTANTS[name])
            case "EMPTY_LIST" | "EMPTY_DICT":
                stack.append([] if name == "EMPTY_LIST" else {})
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3" | "TUPLE":
                stack.append(tuple(self.pop(_TUPLES[name])))
            case "APPEND" | "APPENDS":
                values = self.pop(1 if name == "APPEND" else None)
                _expect(list, stack[-1]).extend(values)
            case "SETITEM" | "SETITEMS":
                values = self.pop(2 if name == "SETITEM" else None)
                # Hashing nested tuples of a hostile file can take for ever, or overflow the interpreter's stack.
                if any(type(key) not in (str, int) for key in values[::2]):
                    raise pickle.UnpicklingError("the keys of a dictionary must be strings or integers")
                _expect(dict, stack[-1]).update(zip(values[::2], values[1::2], strict=True))
            case "MEMOIZE" | "BINPUT" | "LONG_BINPUT":
                self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL" | "STACK_GLOBAL":
                stack.append(self.find(*(argument.split(" ", 1) if argument else self.pop(2))))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self.pop(2)
                stack.append(_expect(FunctionType, function)(*_expect(tuple, arguments)))
            case "BINPERSID":
                _, dtype, key, _, count, *_ = _expect(tuple, stack.pop())
                if self.load is None:
                    raise pickle.UnpicklingError("it refers to a storage, and has none")
                stack.append(_Storage(self.load(_expect(torch.dtype, dtype), _expect(str, key), _expect(int, count))))
            case "BUILD":
                stack.pop()  # attributes, such as the version numbers of a state dict
            case _:
                raise pickle.UnpicklingError(f"it uses {name}, an instruction that no checkpoint needs")

    def pop(self, count: int | None) -> list[Any]:
        """Pops the last ``count`` values, or all above the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < 0:
            raise pickle.UnpicklingError("an instruction lacks its values")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def find(self, module: Any, name: Any) -> Any:
        asked = _expect(str, module), _expect(str, name)
        if asked not in self.functions and (module != "torch" or name not in _TYPES):
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no checkpoint needs")
        return self.functions.get(asked) or _TYPES[name]
