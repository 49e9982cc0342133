"""Reads the published HDF5 files of DeepNets-1M as PyTorch Geometric data (GHN-2, arXiv 2110.13100)."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch_geometric.data import Dataset

from ...graph.arch_data import ArchData
from ...utils.atomic_files import finish_replacing
from ...utils.optional import require
from ...utils.suggest import choice
from .architecture import Architecture
from .network_plan import plan_network
from .published_graph import Vocabulary, direct_edges, published_graph, repair_wiring
from .published_json import DatasetError, index_splits, meta_path
from .width_sampling import evaluation_width

CORRECT_WIRING: Final = "without_wiring_faults"
"""The attribute of an HDF5 file whose graphs need no repair."""

MAX_NODES: Final = 10_000
"""Far above every published graph; a larger one is a damaged file."""

_EXPECTED: Final = (
    "expected deepnets1m_train.hdf5, deepnets1m_eval.hdf5 or deepnets1m_search.hdf5 from the release of the paper "
    "(arXiv 2110.13100) and, in the same folder, its JSON file, such as deepnets1m_train_meta.json"
)


class PublishedDeepNets(Dataset):
    """A split of a published file: the graph of each architecture, with the architecture as ``graph.architecture``.

    Graphs have the published nodes, in the published order if that is topological. Wiring faults are repaired, and
    distances are recomputed up to 50. Names are completed to those of :class:`~ghn_pyg.families.deepnets.Network`,
    which also supplies shapes and the biases of norms. Parameters of the network without a node are in ``graph.kept``.

    Each process opens the HDF5 file when it first reads from it, so a data loader may have any number of workers.
    Reading a graph takes one or two milliseconds.

    Args:
        path: The HDF5 file. Its JSON file, ``<name>_meta.json``, must be in the same folder.
        split: Name of the split, such as ``"train"``, ``"val"`` or ``"bnfree"``.
        num_classes: Number of classes of the networks.
        image_size: Height and width of the images in pixels; 32 for CIFAR-10, 224 for ImageNet.
        width: Channels of the first cells, of which networks of the split ``"wide"`` have a multiple; by default
            those in the file, or 32 where it has none.

    Raises:
        ImportError: If h5py is not installed.
        DatasetError: If a file is missing or damaged, the two do not match, or there is no such split.

    Example:
        >>> with PublishedDeepNets("deepnets1m_train.hdf5") as train:  # doctest: +SKIP
        ...     graph = train[0]
        >>> graph.architecture.cells, graph.param_names[1]  # doctest: +SKIP
        (9, ['stem0.weight'])
    """

    def __init__(
        self, path: str | os.PathLike[str], split: str = "train", *, num_classes: int = 10, image_size: int = 32,
        width: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.path = Path(path)
        self.split = split
        self.classes = num_classes
        self.image_size = image_size
        self.width = width
        self._handle: Any = None
        self._process = 0
        meta = meta_path(self.path)
        finish_replacing(self.path.parent)
        for file in (self.path, meta):
            if not file.is_file():
                raise DatasetError(f"there is no file {file}; {_EXPECTED}")
        with _reading(self.path, _EXPECTED):
            counts = {name: len(group) for name, group in self._file().items()}
        self.close()
        with _reading(meta, _EXPECTED):
            splits = index_splits(meta.read_bytes())
        if split not in splits or split not in counts:
            raise DatasetError(f"{self.path} has no split {split!r}{choice(split, sorted(splits.keys() & counts))}")
        self._index = splits[split]
        if counts[split] != self.len():
            raise DatasetError(
                f"{meta} describes {self.len()} architectures of split {split!r}, but {self.path} has {counts[split]}: "
                "they do not match; download both again"
            )
        with _reading(f"split {split!r} of {meta}"):
            self._vocabulary = Vocabulary(self._index.meta)

    @property
    def num_classes(self) -> int:
        """Number of classes of the networks."""
        return self.classes

    def len(self) -> int:
        """Number of architectures."""
        return len(self._index.starts)

    def get(self, idx: int) -> ArchData:
        """The graph at an index.

        Raises:
            DatasetError: If the files are damaged there.
        """
        return self.graph(idx, self.architecture(idx))

    def architecture(self, idx: int) -> Architecture:
        """The architecture at an index, without its graph.

        Raises:
            IndexError: If the index is out of range.
            DatasetError: If the JSON file is damaged there.
        """
        self._check_index(idx)
        path, start, stop = meta_path(self.path), self._index.starts[idx], self._index.stops[idx]
        with _reading(f"architecture {idx} of split {self.split!r} of {path}"):
            with open(path, "rb") as file:
                file.seek(start)
                args = json.loads(file.read(stop - start))
            architecture = Architecture.from_args(args)
        if self.width is None and "C" in args:
            return architecture
        width = architecture.width if self.width is None else self.width
        return architecture.replace(width=evaluation_width(self.split, self.image_size, width))

    def graph(self, idx: int, architecture: Architecture) -> ArchData:
        """The graph at an index, with shapes for an architecture that may have other sizes than the file's.

        Args:
            idx: The index.
            architecture: The result of :meth:`architecture`, or the same with another width, hidden size or stride.

        Raises:
            IndexError: If the index is out of range.
            DatasetError: If the HDF5 file is damaged there, or belongs to another architecture.

        Example:
            >>> architecture = CIFAR.sample(train.architecture(3), PortableRandom(seed, 3))  # doctest: +SKIP
            >>> train.graph(3, architecture).architecture.width  # doctest: +SKIP
            48
        """
        self._check_index(idx)
        with _reading(f"architecture {idx} of split {self.split!r} of {self.path}"):
            plan = plan_network(architecture, self.num_classes, self.image_size)
            distances, nodes = (self._array(f"{self.split}/{idx}/{name}") for name in ("adj", "nodes"))
            size = len(nodes)
            if (distances.shape, nodes.shape) != ((size, size), (size, 3)):
                raise DatasetError(f"expected shapes (N, N) and (N, 3), got {distances.shape} and {nodes.shape}")
            types, names = self._vocabulary.decode(nodes)
            edges = direct_edges(distances)
            if CORRECT_WIRING not in self._file().attrs:
                edges = repair_wiring(edges, types, names)
            graph = published_graph(plan, edges, types, nodes[:, 1], names)
        graph.architecture = architecture
        return graph

    def close(self) -> None:
        """Closes the HDF5 file; reading opens it again."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def __enter__(self) -> PublishedDeepNets:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def _file(self) -> Any:
        """The HDF5 file, opened by this process: a handle of the parent must not be used after a fork."""
        if self._handle is None or self._process != os.getpid():
            self.close()
            h5py = require("h5py", "deepnets", "published files of architectures")
            self._handle, self._process = h5py.File(self.path, "r", locking="best-effort"), os.getpid()
        return self._handle

    def _array(self, name: str) -> NDArray[Any]:
        """Reads an array with h5py's low-level API, as the other takes longer than the rest of reading a graph."""
        file = self._file()
        from h5py import h5d, h5s

        dataset = h5d.open(file.id, name.encode())
        if dataset.dtype.kind not in "iu" or len(dataset.shape) != 2 or not 0 < dataset.shape[0] <= MAX_NODES:
            raise DatasetError(f"expected a matrix of integers, got shape {dataset.shape} of {dataset.dtype}")
        values = np.empty(dataset.shape, dataset.dtype)
        dataset.read(h5s.ALL, h5s.ALL, values)
        return values

    def _check_index(self, idx: int) -> None:
        if not 0 <= idx < self.len():
            raise IndexError(f"split {self.split!r} of {self.path} has indices 0 to {self.len() - 1}, got {idx}")


@contextlib.contextmanager
def _reading(what: object, hint: str = "") -> Iterator[None]:
    """Turns the errors of damaged files into a :class:`DatasetError`."""
    try:
        yield
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"cannot read {what}: {reason}{hint and f'; {hint}'}") from error
