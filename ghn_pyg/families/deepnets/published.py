"""The published files of DeepNets-1M as PyTorch Geometric data (GHN-2, arXiv 2110.13100)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch_geometric.data import Dataset

from ...graph.arch_data import ArchData
from ...utils.suggest import suggestion
from .architecture import Architecture
from .layout import lay_out
from .published_files import DatasetError, PublishedFiles, meta_path
from .published_graph import Vocabulary, direct_edges, published_graph, repair
from .widths import evaluation_width


class PublishedDeepNets(Dataset):
    """A split of a published file: the graph of each architecture, with the architecture as ``graph.architecture``.

    Graphs have the published nodes, in the published order where that is topological. Their wiring faults are repaired,
    distances are computed anew and cut at 50, and names are completed to those of
    :class:`~ghn_pyg.families.deepnets.Network`, from which they get shapes and the biases of norms. Parameters of the
    network without a node are in ``graph.kept``.

    Files are opened when they are needed, once in each process, so a data loader may have any number of workers.
    Reading a graph takes a millisecond or two.

    Args:
        path: The HDF5 file. Its JSON file, ``<name>_meta.json``, lies in the same folder.
        split: Name of the split, such as ``"train"``, ``"val"`` or ``"bnfree"``.
        num_classes: Classes of the networks.
        image_size: Height and width of their images in pixels; 32 for CIFAR-10, 224 for ImageNet.
        width: Channels of the first cells, of which networks of the split ``"wide"`` have a multiple; by default what
            the file says, and 32 where it says nothing.

    Raises:
        ImportError: If h5py is not installed.
        DatasetError: If a file is missing or damaged, the two do not belong together, or there is no such split.

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
        self._files: PublishedFiles | None = None
        with PublishedFiles(self.path) as files:
            splits, counts = files.index(), files.counts()
        if split not in splits or split not in counts:
            raise DatasetError(_no_split(self.path, split, sorted(splits.keys() & counts.keys())))
        self._index = splits[split]
        if counts[split] != self.len():
            raise DatasetError(
                f"{meta_path(self.path)} describes {self.len()} architectures of split {split!r}, but {self.path} has "
                f"{counts[split]}: they do not belong together; download both again"
            )
        try:
            self._vocabulary = Vocabulary(self._index.meta)
        except DatasetError as error:
            raise DatasetError(f"cannot read split {split!r} of {meta_path(self.path)}: {error}") from error

    @property
    def num_classes(self) -> int:
        """Classes of the networks."""
        return self.classes

    def __getitem__(self, idx: Any) -> Any:
        """The graph at a position, or the dataset of several; see :class:`torch_geometric.data.Dataset`.

        Raises:
            IndexError: If there is no such position.
        """
        try:
            return super().__getitem__(idx)
        except IndexError as error:
            message = f"split {self.split!r} of {self.path} has {len(self)} architectures here, got position {idx}"
            raise IndexError(message) from error

    def len(self) -> int:
        """Number of architectures."""
        return len(self._index.starts)

    def get(self, idx: int) -> ArchData:
        """The graph at a position.

        Raises:
            DatasetError: If what the files hold there is damaged.
        """
        return self.graph(idx, self.architecture(idx))

    def architecture(self, idx: int) -> Architecture:
        """The architecture at a position, without its graph.

        Raises:
            IndexError: If there is no such position.
            DatasetError: If the file holds no architecture there.
        """
        self._check(idx)
        try:
            args = self._open().arguments(self._index, idx)
            architecture = Architecture.from_args(args)
        except (ValueError, TypeError) as error:
            raise self._error(idx, meta_path(self.path), error) from error
        if self.width is None and "C" in args:
            return architecture
        width = architecture.width if self.width is None else self.width
        return dataclasses.replace(architecture, width=evaluation_width(self.split, self.image_size, width))

    def graph(self, idx: int, architecture: Architecture) -> ArchData:
        """The graph at a position, with shapes for an architecture that may differ from the file's in its sizes.

        Args:
            idx: The position.
            architecture: What :meth:`architecture` gives, or the same with another width, hidden size or stride.

        Raises:
            IndexError: If there is no such position.
            DatasetError: If what the file holds there is damaged, or belongs to another architecture.

        Example:
            >>> architecture = CIFAR.draw(train.architecture(3), Numbers(seed, 3))  # doctest: +SKIP
            >>> train.graph(3, architecture).architecture.width  # doctest: +SKIP
            48
        """
        self._check(idx)
        try:
            layout = lay_out(architecture, self.num_classes, self.image_size)
        except ValueError as error:
            raise self._error(idx, meta_path(self.path), error) from error
        files = self._open()
        try:
            distances, nodes = files.arrays(self.split, idx)
            kinds, names = self._vocabulary.decode(nodes)
            edges = direct_edges(distances)
            edges = edges if files.faultless else repair(edges, kinds, names)
            graph = published_graph(layout, edges, kinds, nodes[:, 1], names)
        except DatasetError as error:
            raise self._error(idx, self.path, error) from error
        graph.architecture = architecture
        return graph

    def close(self) -> None:
        """Closes the files; reading opens them again."""
        if self._files is not None:
            self._files.close()
            self._files = None

    def __enter__(self) -> PublishedDeepNets:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": None}

    def _open(self) -> PublishedFiles:
        """The files as opened by this very process: after a fork, those of its parent are not for it to read from."""
        if self._files is None or self._files.process != os.getpid():
            self.close()
            self._files = PublishedFiles(self.path)
        return self._files

    def _check(self, idx: int) -> None:
        if not 0 <= idx < self.len():
            raise IndexError(f"split {self.split!r} of {self.path} has {self.len()} architectures, got position {idx}")

    def _error(self, idx: int, path: Path, error: Exception) -> DatasetError:
        return DatasetError(f"cannot read architecture {idx} of split {self.split!r} of {path}: {error}")


def _no_split(path: Path, split: object, present: Sequence[str]) -> str:
    return f"{path} has no split {split!r}; it has {', '.join(present) or 'none'}{suggestion(split, present)}"
