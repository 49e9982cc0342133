"""Exports architectures to the published HDF5 format of DeepNets-1M (GHN-2, arXiv 2110.13100)."""

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
from ...utils.atomic_files import replacing_together
from ...utils.optional import require
from .architecture import Architecture
from .graph_from_architecture import architecture_graph
from .network_plan import count_parameters
from .published_hdf5 import CORRECT_WIRING, MAX_NODES
from .published_json import meta_path

_TYPES: Final = (*PRIMITIVES, "conv_1x1")
_IN_CELL: Final = re.compile(r"cells\.(\d+)[.:]")
_SPLIT: Final = re.compile(r"[\w-]+", re.ASCII)
_DEFAULTS: Final = (("C", 32), ("imagenet_stride", 4))
"""Arguments that published files omit."""


def export(splits: Mapping[str, Iterable[Architecture]], path: str | os.PathLike[str]) -> None:
    """Writes architectures to an HDF5 file and its JSON file.

    :class:`~ghn_pyg.families.deepnets.PublishedDeepNets` reads them. Architectures are consumed one by one, so an
    iterable may show progress, and a million of them need no more memory than one. Both files are complete before
    either replaces an older one.

    Args:
        splits: The architectures of each split.
        path: The HDF5 file to write, such as ``"deepnets1m_train.hdf5"``; the JSON file is then
            ``"deepnets1m_train_meta.json"``.

    Raises:
        ImportError: If h5py is not installed.
        TypeError: If an item is no architecture.
        ValueError: If an architecture has no network or too many nodes, or a split has an invalid name.
        OSError: If a file cannot be written, as on a full disk; older files stay unchanged.

    Example:
        >>> architectures = (sample("val", index) for index in rich.progress.track(range(500)))  # doctest: +SKIP
        >>> export({"val": architectures}, "own_eval.hdf5")  # doctest: +SKIP
    """
    h5py = require("h5py", "deepnets", "published files of architectures")
    path = Path(path)
    for split in splits:
        if not isinstance(split, str) or not _SPLIT.fullmatch(split):
            raise ValueError(f"a split's name expected letters, digits, '_' and '-', got {split!r:.80}")
    with (
        replacing_together(path, meta_path(path)) as (data_file, meta_file),
        open(meta_file, "w", encoding="utf-8") as text,
        _DeferredErrors(data_file, "w+b") as stream,
    ):
        try:
            with h5py.File(stream, "w") as data:
                data.attrs.update({"title": "DeepNets-1M", CORRECT_WIRING: True})
                _write_splits(splits, data, text, stream)
        finally:
            stream.raise_error()


def _write_splits(
    splits: Mapping[str, Iterable[Architecture]], data: Any, text: TextIO, stream: _DeferredErrors
) -> None:
    text.write("{")
    for number, (split, architectures) in enumerate(splits.items()):
        group = data.create_group(split)
        name_ids: dict[str, int] = {}
        text.write(f'{", " if number else ""}{json.dumps(split)}: {{"nets": [')
        for index, architecture in enumerate(architectures):
            if not isinstance(architecture, Architecture):
                raise TypeError(f"split {split!r} expected architectures, got {architecture!r:.80} at index {index}")
            graph = architecture_graph(architecture, cutoff=254)  # the largest distance below 255 in a byte
            if graph.num_nodes > MAX_NODES:
                raise ValueError(f"graphs may have up to {MAX_NODES} nodes, got {graph.num_nodes}")
            _write_graph(group.create_group(str(index)), graph, name_ids)
            stream.raise_error()
            text.write(", " if index else "")
            json.dump(_arguments(architecture, graph.num_nodes), text)
        meta = {
            "primitives_ext": dict(enumerate(_TYPES)),
            "unique_op_names": {name_id: name for name, name_id in name_ids.items()},
        }
        text.write(f'], "meta": {json.dumps(meta)}}}')
    text.write("}")


def _arguments(architecture: Architecture, num_nodes: int) -> dict[str, Any]:
    args = {name: value for name, value in architecture.to_args().items() if (name, value) not in _DEFAULTS}
    sizes = {"cifar10": 32, "imagenet": 224}
    num_params = {data: count_parameters(architecture, image_size=size) for data, size in sizes.items()}
    return {**args, "num_nodes": num_nodes, "num_params": num_params}


def _write_graph(group: Any, graph: ArchData, name_ids: dict[str, int]) -> None:
    """Writes a graph; new names get the next free id."""
    types = graph.node_type.clone()
    types[(types == PRIMITIVE_ID["conv"]) & (graph.node_shape[:, 2:] == 1).all(1)] = _TYPES.index("conv_1x1")
    rows, cell = [], 0
    for type_id, node_type, node_name, params in zip(
        types.tolist(), graph.node_types, graph.node_names, graph.params, strict=True
    ):
        in_cell = _IN_CELL.match(node_name)
        cell = int(in_cell[1]) if in_cell else cell  # the stem counts as the first cell's, the head as the last one's
        name = node_name[in_cell.end() if in_cell else 0 :] if params else node_type
        rows.append((type_id, cell, name_ids.setdefault(name, len(name_ids))))
    size = graph.num_nodes
    arrays = {"adj": graph.distance.view(size, size).numpy(), "nodes": np.array(rows, np.uint16)}
    for name, values in arrays.items():
        group.create_dataset(name, data=values, chunks=values.shape, compression="gzip")


class _DeferredErrors(io.FileIO):
    """A file whose write errors wait for :meth:`raise_error`.

    The HDF5 library retries a failed write whenever it closes an object, and in the end aborts the process.
    """

    _error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Writes everything, unless an earlier write failed."""
        remaining = memoryview(data)
        try:
            while remaining and self._error is None:
                remaining = remaining[super().write(remaining) :]
        except OSError as error:
            self._error = error
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        """Sets the size, unless an earlier write failed."""
        try:
            return super().truncate(size) if self._error is None else 0
        except OSError as error:
            self._error = error
            return 0

    def raise_error(self) -> None:
        """Raises the first error."""
        if self._error is not None:
            raise self._error
