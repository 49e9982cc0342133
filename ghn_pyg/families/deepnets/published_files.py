"""The files of DeepNets-1M: an HDF5 file with graphs, and a JSON file with the arguments of each architecture.

As Python objects, the arguments of the million training architectures take gigabytes, in every worker of a data
loader. Their positions in the file take sixteen megabytes, and reading one takes microseconds.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import mmap
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_EXPECTED: Final = (
    "expected deepnets1m_train.hdf5, deepnets1m_eval.hdf5 or deepnets1m_search.hdf5 from the release of the paper "
    "(arXiv 2110.13100) and, in the same folder, its JSON file, such as deepnets1m_train_meta.json"
)
FAULTLESS: Final = "without_wiring_faults"
"""The attribute of an HDF5 file whose graphs need no repair."""
MOST_NODES: Final = 10_000
"""Far above every published graph; a larger one is a damaged file."""
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODE: Final = json.JSONDecoder().raw_decode


class DatasetError(ValueError):
    """A DeepNets-1M file cannot be found, read or written."""


@dataclasses.dataclass(frozen=True)
class SplitIndex:
    """What a JSON file says of one split.

    Args:
        starts: Position of the first byte of each architecture's arguments.
        stops: Position after their last byte.
        meta: The meanings of the ids in the HDF5 file, by kind.
    """

    starts: array[int]
    stops: array[int]
    meta: Any


def meta_path(path: str | os.PathLike[str]) -> Path:
    """Where the JSON file of an HDF5 file lies.

    Example:
        >>> meta_path("deepnets1m_train.hdf5").name
        'deepnets1m_train_meta.json'
    """
    path = Path(path)
    return path.with_name(f"{path.stem}_meta.json")


def import_h5py() -> Any:
    """The package h5py, which nothing else needs.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError(
            'the files of DeepNets-1M need the package h5py; install it with: pip install "ghn_pyg[deepnets]"'
        ) from error


class PublishedFiles:
    """The two files, open for reading.

    Args:
        path: The HDF5 file.

    Attributes:
        process: The process that opened them.
        faultless: Whether the graphs are said to have none of the wiring faults of the published ones.

    Raises:
        ImportError: If h5py is not installed.
        DatasetError: If a file is missing, or the HDF5 file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._h5py = h5py = import_h5py()
        self.path, self.process = path, os.getpid()
        for file in (path, meta_path(path)):
            if not file.is_file():
                raise DatasetError(f"there is no file {file}; {_EXPECTED}")
        try:
            self._data = h5py.File(path, "r", locking="best-effort")
        except OSError as error:
            reason = " ".join(str(error).split())
            raise DatasetError(
                f"cannot read {path}: it is no HDF5 file, or a part of one ({reason}); {_EXPECTED}"
            ) from error
        self.faultless = FAULTLESS in self._data.attrs
        with open(meta_path(path), "rb") as text:
            empty = not os.fstat(text.fileno()).st_size
            self._text = b"" if empty else mmap.mmap(text.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> PublishedFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes both."""
        self._data.close()
        if isinstance(self._text, mmap.mmap):
            self._text.close()

    def counts(self) -> dict[str, int]:
        """Number of graphs of each split."""
        return {name: len(group) for name, group in self._data.items() if isinstance(group, self._h5py.Group)}

    def index(self) -> dict[str, SplitIndex]:
        """What the JSON file says of each split.

        Raises:
            DatasetError: If it is damaged.
        """
        try:
            return index_splits(self._text)
        except DatasetError as error:
            raise DatasetError(f"cannot read {meta_path(self.path)}: {error}; {_EXPECTED}") from error

    def arguments(self, index: SplitIndex, position: int) -> Any:
        """The arguments of one architecture of a split.

        Raises:
            ValueError: If the file is another one than that of the index.
        """
        return json.loads(self._text[index.starts[position] : index.stops[position]])

    def arrays(self, split: str, position: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The distances of one graph of a split, of shape (N, N), and its nodes, of shape (N, 3).

        Raises:
            DatasetError: If they are damaged.
        """
        try:
            distances, nodes = (self._open(f"{split}/{position}/{name}") for name in ("adj", "nodes"))
            shapes = distances.shape, nodes.shape
            size = shapes[0][0] if shapes[0] else 0
            if shapes != ((size, size), (size, 3)) or not 0 < size <= MOST_NODES:
                raise DatasetError(f"expected distances of shape (N, N) and nodes of shape (N, 3), got {shapes}")
            return self._values(distances), self._values(nodes)
        except (KeyError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise DatasetError(f"its graph is missing or damaged ({reason}); download the file again") from error

    def _open(self, name: str) -> Any:
        # h5py's upper level takes twice as long as all the rest of reading a graph.
        return self._h5py.h5d.open(self._data.id, name.encode())

    def _values(self, dataset: Any) -> NDArray[Any]:
        if dataset.dtype.kind not in "iu":
            raise DatasetError(f"expected integers, got {dataset.dtype}")
        values = np.empty(dataset.shape, dataset.dtype)
        dataset.read(self._h5py.h5s.ALL, self._h5py.h5s.ALL, values)
        return values


def index_splits(content: bytes | mmap.mmap) -> dict[str, SplitIndex]:
    """Finds the arguments of all architectures, holding one of them at a time.

    Args:
        content: The JSON file, ``{split: {"nets": [arguments, …], "meta": …}, …}``.

    Returns:
        The index of each split.

    Raises:
        DatasetError: If it is no such file.

    Example:
        >>> content = b'{"val": {"nets": [{"ks": 3}, {"ks": 5}], "meta": {}}}'
        >>> val = index_splits(content)["val"]
        >>> content[val.starts[1] : val.stops[1]]
        b'{"ks": 5}'
    """
    try:
        cursor = _Cursor(str(content, "ascii"))  # as json writes it, so that positions in the text are those of bytes
        splits = {name: _index_split(cursor) for name in cursor.keys()}  # noqa: SIM118 - no mapping
        cursor.end()
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"it is damaged or no JSON file of DeepNets-1M ({error})") from error
    return splits


def _index_split(cursor: _Cursor) -> SplitIndex:
    starts, stops = array("q"), array("q")
    meta = None
    for key in cursor.keys():  # noqa: SIM118 - no mapping
        if key == "nets":
            for start in cursor.items():
                cursor.value()
                starts.append(start)
                stops.append(cursor.position)
        else:
            value = cursor.value()
            meta = value if key == "meta" else meta
    return SplitIndex(starts, stops, meta)


class _Cursor:
    """Walks through a JSON text; objects and arrays may be entered or taken as a whole.

    Whoever iterates over :meth:`keys` or :meth:`items` reads one value in each round.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def value(self) -> Any:
        """Reads the value that comes next."""
        self._skip_space()
        value, self.position = _DECODE(self.text, self.position)
        return value

    def keys(self) -> Iterator[Any]:
        """Enters an object: its keys."""
        for _ in self._members("{", "}"):
            key = self.value()
            self._expect(":")
            yield key

    def items(self) -> Iterator[int]:
        """Enters an array: the positions of its values."""
        return self._members("[", "]")

    def end(self) -> None:
        """Makes sure that nothing is left."""
        self._skip_space()
        if self.position < len(self.text):
            raise json.JSONDecodeError("Extra data", self.text, self.position)

    def _members(self, opening: str, closing: str) -> Iterator[int]:
        self._expect(opening)
        if self._take(closing):
            return
        while True:
            self._skip_space()
            yield self.position
            if not self._take(","):
                break
        self._expect(closing)

    def _skip_space(self) -> None:
        self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]  # it always matches

    def _take(self, character: str) -> bool:
        self._skip_space()
        taken = self.text.startswith(character, self.position)
        self.position += taken
        return taken

    def _expect(self, character: str) -> None:
        if not self._take(character):
            raise json.JSONDecodeError(f"Expecting {character!r}", self.text, self.position)
