"""Graphs of DeepNets-1M as PyTorch Geometric data: by position, or as an endless stream of meta-batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info
from torch_geometric.data import Batch, Dataset

from ...graph.arch_data import ArchData
from .architecture import Architecture
from .curriculum import Curriculum
from .graph import architecture_graph
from .layout import CellLayout, lay_out
from .sampling import SPLIT_SIZES, Numbers, check_place, sample
from .widths import CIFAR, WidthRule, evaluation_width

NODE_BUDGET: Final = 2200
"""Nodes of eight training architectures together, which a graph transformer takes at a time."""

NO_CURRICULUM: Final = Curriculum()

_NUMBER: Final = 200
_START: Final = {"cpu": 200_000}
_START_ELSEWHERE: Final = 20_000_000

_STREAM: Final = 1 << 20
"""Marks the random numbers of widths, so that they differ from those of architectures."""


class DeepNets(Dataset):
    """A split of DeepNets-1M: the graph of each architecture, with the architecture as ``graph.architecture``.

    Nothing is stored: architectures are drawn when they are asked for (see
    :func:`~ghn_pyg.families.deepnets.sample`), which takes a millisecond or two. Slices, lists of positions and
    shuffling work as with every :class:`torch_geometric.data.Dataset`.

    Args:
        split: ``"train"``, ``"val"``, ``"test"``, ``"wide"``, ``"deep"``, ``"dense"``, ``"bnfree"`` or ``"search"``.
        num_classes: Classes of the networks.
        image_size: Height and width of their images in pixels.
        width: Channels of the first cells; networks of the split ``"wide"`` have a multiple of it.
        seed: For other samples from the same distribution.
        cutoff: Largest shortest-path distance that is kept.

    Raises:
        ValueError: If there is no such split; when a graph is asked for, if its network cannot have this width, number
            of classes or image size.

    Example:
        >>> graph = DeepNets("val")[3]
        >>> graph.num_nodes, graph.architecture.cells, graph.architecture.width
        (157, 12, 32)
    """

    def __init__(
        self, split: str, *, num_classes: int = 10, image_size: int = 32, width: int = 32, seed: int = 0,
        cutoff: int = 50,
    ) -> None:  # fmt: skip
        check_place(split, 0, seed)
        super().__init__()
        self.split = split
        self.classes = num_classes
        self.image_size = image_size
        self.width = evaluation_width(split, image_size, width)
        self.seed = seed
        self.cutoff = cutoff

    @property
    def num_classes(self) -> int:
        """Classes of the networks."""
        return self.classes

    def __getitem__(self, idx: Any) -> Any:
        """The graph at a position, or the dataset of several; see :class:`torch_geometric.data.Dataset`.

        Raises:
            IndexError: If there is no such position.
        """
        if isinstance(idx, (int, np.integer)) and not -len(self) <= idx < len(self):
            raise IndexError(f"split {self.split!r} has positions 0 to {len(self) - 1:,} here, got {idx:,}")
        return super().__getitem__(idx)

    def len(self) -> int:
        """Number of architectures."""
        return SPLIT_SIZES[self.split]

    def get(self, idx: int) -> ArchData:
        """The graph at a position."""
        architecture = dataclasses.replace(sample(self.split, idx, self.seed), width=self.width)
        return sized_graph(architecture, self.num_classes, self.image_size, self.cutoff)


def sized_graph(architecture: Architecture, num_classes: int, image_size: int, cutoff: int = 50) -> ArchData:
    """The graph of an architecture, which it carries as ``graph.architecture``."""
    graph = architecture_graph(architecture, num_classes, image_size, cutoff=cutoff)
    graph.architecture = architecture
    return graph


@dataclasses.dataclass(frozen=True)
class MetaBatch:
    """Architectures for one step of meta-training.

    Args:
        step: Which step it is for.
        parts: The graphs in batches, none of which exceeds the node budget (but for a graph that does by itself).
        num_classes: Classes of the networks.
        image_size: Height and width of their images in pixels.
    """

    step: int
    parts: list[Batch]
    num_classes: int
    image_size: int

    def __len__(self) -> int:
        """Number of architectures."""
        return sum(part.num_graphs for part in self.parts)


class MetaBatches(IterableDataset[MetaBatch]):
    """An endless stream of meta-batches for meta-training.

    A meta-batch is a function of (seed, step, rank) alone: to resume, start at the next step. Whatever the number of
    workers, steps come in order, each once. All ranks together hold ``size`` architectures of a step, which are dealt
    so that all ranks have about as much to compute (see :func:`deal`).

    Published training code drops meta-batches of many nodes, which makes large networks rarer than they are in the
    distribution. Here nothing is dropped: a meta-batch is cut into parts that fit the node budget, whose gradients
    add up.

    Use it with ``DataLoader(MetaBatches(…), batch_size=None, num_workers=…)``.

    Args:
        size: Architectures in a meta-batch, on all ranks together.
        num_classes: Classes of the networks.
        image_size: Height and width of their images in pixels.
        widths: Which widths and head sizes are drawn.
        seed: Seed of architectures and widths.
        first_step: The step to start with.
        node_budget: Nodes that go through the GHN together.
        rank: Which of the processes this is, over all machines; by default as ``torch.distributed`` has it.
        world_size: Number of processes; by default as ``torch.distributed`` has it.
        split: The split that architectures are drawn from.
        curriculum: How small networks are at first; by default they are as they are drawn.
        device: Type of the device that trains, which architectures are dealt for.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> batches = MetaBatches(4, seed=5)
        >>> [len(batches.meta_batch(step)) for step in (0, 1)]
        [4, 4]
    """

    def __init__(
        self, size: int = 8, *, num_classes: int = 10, image_size: int = 32, widths: WidthRule = CIFAR, seed: int = 0,
        first_step: int = 0, node_budget: int = NODE_BUDGET, rank: int | None = None, world_size: int | None = None,
        split: str = "train", curriculum: Curriculum = NO_CURRICULUM, device: str = "cpu",
    ) -> None:  # fmt: skip
        check_place(split, 0, seed)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = rank if rank is not None else torch.distributed.get_rank() if distributed else 0
        self.world_size = (
            world_size if world_size is not None else torch.distributed.get_world_size() if distributed else 1
        )
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank expected a number below the world size {self.world_size}, got {self.rank}")
        if size < self.world_size:
            raise ValueError(f"size must be at least {self.world_size}, one architecture for each process, got {size}")
        for name, value, least in (("first_step", first_step, 0), ("node_budget", node_budget, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.size = size
        self.num_classes = num_classes
        self.image_size = image_size
        self.widths = widths
        self.seed = seed
        self.first_step = first_step
        self.node_budget = node_budget
        self.split = split
        self.curriculum = curriculum
        self.device = device

    def architectures(self, step: int) -> list[Architecture]:
        """The architectures of this rank at a step, each with the width and head size of this use."""
        joint = [self._architecture(slot, step) for slot in range(step * self.size, (step + 1) * self.size)]
        if self.world_size == 1:
            return joint
        efforts = [effort(one, self.image_size, self.device) for one in joint]
        return [joint[position] for position in deal(efforts, self.world_size)[self.rank]]

    def _architecture(self, slot: int, step: int) -> Architecture:
        drawn = self.curriculum.apply(sample(self.split, slot % SPLIT_SIZES[self.split], self.seed), step)
        return self.widths.draw(drawn, Numbers(self.seed, _STREAM, slot))

    def meta_batch(self, step: int) -> MetaBatch:
        """The meta-batch of this rank at a step."""
        graphs = [sized_graph(one, self.num_classes, self.image_size) for one in self.architectures(step)]
        parts = pack([graph.num_nodes for graph in graphs], self.node_budget)
        batches = [Batch.from_data_list([graphs[position] for position in part]) for part in parts]
        return MetaBatch(step, batches, self.num_classes, self.image_size)

    def __iter__(self) -> Iterator[MetaBatch]:
        """All steps, or every n-th in one of n workers, which a loader joins in their order."""
        info: Any = get_worker_info()
        offset, stride = (0, 1) if info is None else (info.id, info.num_workers)
        step = self.first_step + offset
        while True:
            yield self.meta_batch(step)
            step += stride


def effort(architecture: Architecture, image_size: int = 32, device: str = "cpu") -> int:
    """About how long a network trains, in products of a weight and a number, which all else is converted to.

    A number that a layer gives takes as long as 200 products, as it goes through memory several times, and a layer as
    long as 200,000 on a CPU before it computes anything (from times of 48 networks). On a GPU it is 20 million, an
    estimate from how long an H100 waits for kernels. Stem and classifier do not count.

    Args:
        architecture: The architecture.
        image_size: Height and width of the images in pixels.
        device: Type of the device.

    Example:
        >>> from ghn_pyg.families.deepnets.genotype import DARTS
        >>> darts = Architecture(genotype=DARTS, cells=20, width=32)
        >>> effort(darts), effort(darts, device="cuda")
        (2249550848, 15871950848)
    """
    layout = lay_out(architecture, image_size=image_size)
    layers = {cell: _layers(cell, architecture.width) for cell in set(layout.cells)}
    start = _START.get(device, _START_ELSEWHERE)
    return sum(
        products * side * side + start
        for cell, side in zip(layout.cells, layout.sides, strict=True)
        for products in layers[cell]
    )


def _layers(cell: CellLayout, width: int) -> list[int]:
    """The products of each layer of a cell at each position."""
    shapes = [
        node.params[0][1] if node.params else (width,) for _, part, used in cell.parts() if used for node in part.nodes
    ]
    return [_NUMBER * shape[0] + (math.prod(shape) if len(shape) > 1 else 0) for shape in shapes]


def deal(efforts: Sequence[int], hands: int) -> list[list[int]]:
    """Deals things so that all hands have about the same effort: the largest first, each to the hand with the least.

    Args:
        efforts: The effort of each thing, at least 1.
        hands: How many there are; none stays empty if there are as many things.

    Returns:
        For each hand the ascending positions of its things.

    Example:
        >>> deal([2, 7, 3, 4], 2)
        [[0, 1], [2, 3]]
    """
    dealt: list[list[int]] = [[] for _ in range(hands)]
    totals = [0] * hands
    for position in sorted(range(len(efforts)), key=lambda position: -efforts[position]):
        hand = totals.index(min(totals))
        dealt[hand].append(position)
        totals[hand] += efforts[position]
    return [sorted(hand) for hand in dealt]


def pack(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Packs things of given sizes into few parts, first-fit by descending size.

    Args:
        sizes: The size of each.
        budget: Largest size of a part; a thing that is larger has a part of its own.

    Returns:
        For each part the ascending positions of the things in it.

    Example:
        >>> pack([5, 2, 9, 3], 8)
        [[2], [0, 3], [1]]
    """
    parts: list[list[int]] = []
    rooms: list[int] = []
    for position in sorted(range(len(sizes)), key=lambda position: -sizes[position]):
        place = next((place for place, room in enumerate(rooms) if sizes[position] <= room), None)
        if place is None:
            parts.append([position])
            rooms.append(budget - sizes[position])
        else:
            parts[place].append(position)
            rooms[place] -= sizes[position]
    return [sorted(part) for part in parts]
