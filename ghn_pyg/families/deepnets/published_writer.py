"""Writes architectures in the published format of DeepNets-1M (GHN-2, arXiv 2110.13100)."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from ...graph.arch_data import ArchData
from ...graph.node_types import PRIMITIVE_ID, PRIMITIVES
from ...utils.atomic_files import replacing
from .architecture import Architecture
from .graph import architecture_graph
from .layout import count_parameters
from .published_files import FAULTLESS, MOST_NODES, import_h5py, meta_path

_TYPES: Final = (*PRIMITIVES, "conv_1x1")
_IN_CELL: Final = re.compile(r"cells\.(\d+)[.:]")
_SPLIT: Final = re.compile(r"[\w-]+", re.ASCII)
_DEFAULTS: Final = (("C", 32), ("imagenet_stride", 4))
"""What published files leave out."""


def export(splits: Mapping[str, Iterable[Architecture]], path: str | os.PathLike[str]) -> None:
    """Writes architectures as an HDF5 file and its JSON file.

    :class:`~ghn_pyg.families.deepnets.PublishedDeepNets` reads them. Each architecture is taken when the one before
    it is written, so wrap an iterable to show progress; a million architectures need no more memory than one. Both
    files are complete before either replaces an older one.

    Args:
        splits: The architectures of each split.
        path: The HDF5 file to write, such as ``"deepnets1m_train.hdf5"``; the JSON file is
            ``"deepnets1m_train_meta.json"`` then.

    Raises:
        ImportError: If h5py is not installed.
        TypeError: If something is no architecture.
        ValueError: If an architecture has no network or too many nodes, or a split has no proper name.
        OSError: If a file cannot be written, as on a full disk; older files stay as they were.

    Example:
        >>> architectures = (sample("val", index) for index in rich.progress.track(range(500)))  # doctest: +SKIP
        >>> export({"val": architectures}, "own_eval.hdf5")  # doctest: +SKIP
    """
    h5py = import_h5py()
    path = Path(path)
    for split in splits:
        if not isinstance(split, str) or not _SPLIT.fullmatch(split):
            raise ValueError(f"a split needs a name of letters, digits, '_' and '-', got {split!r:.80}")
    try:
        with (
            replacing(meta_path(path)) as meta_file,
            replacing(path) as data_file,
            open(meta_file, "w", encoding="utf-8") as text,
            _SteadyFile(data_file, "w+b") as stream,
        ):
            try:
                with h5py.File(stream, "w") as data:
                    data.attrs.update({"title": "DeepNets-1M", FAULTLESS: True})
                    _write_splits(splits, data, text, stream)
            finally:
                stream.check()
            text.flush()
            os.fsync(text.fileno())  # before the other file takes its place
    except OSError as error:
        raise OSError(f"cannot write {path} and {meta_path(path).name}: {_reason(error)}") from error


def _write_splits(splits: Mapping[str, Iterable[Architecture]], data: Any, text: TextIO, stream: _SteadyFile) -> None:
    text.write("{")
    for number, (split, architectures) in enumerate(splits.items()):
        group = data.create_group(split)
        names: dict[str, int] = {}
        text.write(f'{", " if number else ""}{json.dumps(split)}: {{"nets": [')
        for position, architecture in enumerate(architectures):
            if not isinstance(architecture, Architecture):
                raise TypeError(
                    f"split {split!r} expected architectures, got {architecture!r:.80} at position {position}"
                )
            # The cutoff is the largest distance that is no overflow of a byte.
            graph = architecture_graph(architecture, cutoff=254)
            if graph.num_nodes > MOST_NODES:
                raise ValueError(f"graphs may have up to {MOST_NODES} nodes, got {graph.num_nodes}")
            _write_graph(group.create_group(str(position)), graph, names)
            stream.check()
            text.write(", " if position else "")
            json.dump(_arguments(architecture, graph.num_nodes), text)
        meta = {
            "primitives_ext": dict(enumerate(_TYPES)),
            "unique_op_names": {place: name for name, place in names.items()},
        }
        text.write(f'], "meta": {json.dumps(meta)}}}')
    text.write("}")


def _arguments(architecture: Architecture, num_nodes: int) -> dict[str, Any]:
    args = {name: value for name, value in architecture.to_args().items() if (name, value) not in _DEFAULTS}
    sizes = {"cifar10": 32, "imagenet": 224}
    num_params = {data: count_parameters(architecture, image_size=size) for data, size in sizes.items()}
    return {**args, "num_nodes": num_nodes, "num_params": num_params}


def _write_graph(group: Any, graph: ArchData, names: dict[str, int]) -> None:
    """Writes a graph; ``names`` holds the names in the cell and their ids, and takes those that are new."""
    kinds = graph.node_type.clone()
    kinds[(kinds == PRIMITIVE_ID["conv"]) & (graph.node_shape[:, 2:] == 1).all(1)] = _TYPES.index("conv_1x1")
    rows, cell = [], 0
    for kind, node_type, node_name, params in zip(
        kinds.tolist(), graph.node_types, graph.node_names, graph.params, strict=True
    ):
        inside = _IN_CELL.match(node_name)
        cell = int(inside[1]) if inside else cell  # the stem counts as the first cell's, the head as the last one's
        name = node_name[inside.end() if inside else 0 :] if params else node_type
        rows.append((kind, cell, names.setdefault(name, len(names))))
    size = graph.num_nodes
    arrays = {"adj": graph.distance.view(size, size).numpy(), "nodes": np.array(rows, np.uint16)}
    for name, values in arrays.items():
        group.create_dataset(name, data=values, chunks=values.shape, compression="gzip")


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (isinstance(error, OSError) and error.strerror) or str(error)


class _SteadyFile(io.FileIO):
    """A file that goes on after a failure, as if nothing had happened, until somebody checks.

    The HDF5 library keeps what it could not write, tries again whenever a part is closed, and ends the process.
    """

    _error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Writes all of it, unless something failed before."""
        left = memoryview(data)
        try:
            while left and self._error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._error = error
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        """Sets the size, unless something failed before."""
        try:
            return super().truncate(size) if self._error is None else 0
        except OSError as error:
            self._error = error
            return 0

    def check(self) -> None:
        """Raises the first failure."""
        if self._error is not None:
            raise self._error
