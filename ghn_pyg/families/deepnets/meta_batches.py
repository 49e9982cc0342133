"""An endless stream of meta-batches, each packed into micro-batches that fit a node budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final

import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info
from torch_geometric.data import Batch

from .architecture import Architecture
from .architecture_sampling import SPLIT_SIZES, check_index, sample
from .curriculum import Curriculum
from .dataset import graph_with_architecture
from .portable_random import PortableRandom
from .rank_sharding import shard_by_cost, training_cost
from .width_sampling import CIFAR, WidthRule

NODE_BUDGET: Final = 2200
"""The published limit for the nodes of eight training architectures."""

_WIDTH_STREAM: Final = 1 << 20
"""Selects the random numbers of widths, which differ from those of architectures."""


@dataclasses.dataclass(frozen=True)
class MetaBatch:
    """Architectures for one step of meta-training.

    Args:
        step: The training step.
        parts: Micro-batches of graphs within the node budget; a graph above the budget has its own.
        num_classes: Number of classes of the networks.
        image_size: Height and width of the images in pixels.
    """

    step: int
    parts: list[Batch]
    num_classes: int
    image_size: int

    def __len__(self) -> int:
        """Number of architectures."""
        return sum(batch.num_graphs for batch in self.parts)


class MetaBatches(IterableDataset[MetaBatch]):
    """An endless stream of meta-batches for meta-training.

    A meta-batch depends on (seed, step, rank) alone: to resume, start at the next step. Steps come in order, each
    once, with any number of workers. All ranks together have ``size`` architectures in a step, which are sharded so
    that their costs are similar (see :func:`~ghn_pyg.families.deepnets.rank_sharding.shard_by_cost`).

    Published training code drops meta-batches with too many nodes, which makes large networks rarer than they are in
    the distribution. Here nothing is dropped: a meta-batch is packed into micro-batches that fit the node budget, over
    which training accumulates gradients.

    Use it with ``DataLoader(MetaBatches(…), batch_size=None, num_workers=…)``.

    Args:
        size: Number of architectures in a meta-batch, over all ranks.
        num_classes: Number of classes of the networks.
        image_size: Height and width of the images in pixels.
        widths: The rule for widths and head sizes.
        seed: Seed of architectures and widths.
        first_step: The first step of the stream.
        node_budget: Largest number of nodes in a micro-batch.
        rank: Rank of this process; by default that of ``torch.distributed``.
        world_size: Number of processes; by default that of ``torch.distributed``.
        split: The split of the architectures.
        networks: Number of architectures, the first ones of the split; by default all.
        curriculum: Limits the size of networks in the first steps; by default there is no limit.
        device: Type of the training device, for which costs are estimated.

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
        split: str = "train", networks: int | None = None, curriculum: Curriculum | None = None, device: str = "cpu",
    ) -> None:  # fmt: skip
        check_index(split, 0, seed)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if rank is None:
            rank = torch.distributed.get_rank() if distributed else 0
        if world_size is None:
            world_size = torch.distributed.get_world_size() if distributed else 1
        if not 0 <= rank < world_size:
            raise ValueError(f"rank expected a number below the world size {world_size}, got {rank}")
        if size < world_size:
            raise ValueError(f"size must be at least {world_size}, one architecture for each rank, got {size}")
        for name, value, minimum in (("first_step", first_step, 0), ("node_budget", node_budget, 1)):
            if value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, got {value}")
        self.size = size
        self.num_classes = num_classes
        self.image_size = image_size
        self.widths = widths
        self.seed = seed
        self.first_step = first_step
        self.node_budget = node_budget
        self.rank = rank
        self.world_size = world_size
        self.split = split
        self.networks = min(networks or SPLIT_SIZES[split], SPLIT_SIZES[split])
        self.curriculum = curriculum or Curriculum()
        self.device = device

    def architectures(self, step: int) -> list[Architecture]:
        """The architectures of this rank at a step, with their widths and head sizes."""
        everywhere = [self._architecture(index, step) for index in range(step * self.size, (step + 1) * self.size)]
        if self.world_size == 1:
            return everywhere
        costs = [training_cost(architecture, self.image_size, self.device) for architecture in everywhere]
        return [everywhere[index] for index in shard_by_cost(costs, self.world_size)[self.rank]]

    def _architecture(self, index: int, step: int) -> Architecture:
        architecture = sample(self.split, index % self.networks, self.seed)
        random = PortableRandom(self.seed, _WIDTH_STREAM, index)
        return self.widths.sample(self.curriculum.apply(architecture, step), random)

    def meta_batch(self, step: int) -> MetaBatch:
        """The meta-batch of this rank at a step."""
        graphs = [
            graph_with_architecture(architecture, self.num_classes, self.image_size)
            for architecture in self.architectures(step)
        ]
        bins = pack_to_budget([graph.num_nodes for graph in graphs], self.node_budget)
        parts = [Batch.from_data_list([graphs[index] for index in indices]) for indices in bins]
        return MetaBatch(step, parts, self.num_classes, self.image_size)

    def __iter__(self) -> Iterator[MetaBatch]:
        """All steps; in one of n workers every n-th step, which the loader interleaves in order."""
        worker = get_worker_info()
        step, stride = (self.first_step, 1) if worker is None else (self.first_step + worker.id, worker.num_workers)
        while True:
            yield self.meta_batch(step)
            step += stride


def pack_to_budget(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Packs items into few bins by first-fit decreasing.

    Args:
        sizes: The size of each item.
        budget: Largest total size of a bin; a larger item has its own bin.

    Returns:
        The ascending indices of the items of each bin.

    Example:
        >>> pack_to_budget([5, 2, 9, 3], 8)
        [[2], [0, 3], [1]]
    """
    bins: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        target = next((target for target, space in enumerate(free) if sizes[index] <= space), None)
        if target is None:
            bins.append([index])
            free.append(budget - sizes[index])
        else:
            bins[target].append(index)
            free[target] -= sizes[index]
    return [sorted(indices) for indices in bins]
