"""Shares the architectures of a meta-batch among ranks so that all of them have a similar training cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from .architecture import Architecture
from .network_plan import CellPlan, plan_network

# In multiply-adds: the memory traffic of an output element, and the overhead of starting a layer. The CPU's are fitted
# to the times of 48 networks, the GPU's overhead is estimated from how long an H100 waits for kernels.
_COST_PER_OUTPUT: Final = 200
_LAYER_OVERHEAD_CPU: Final = 200_000
_LAYER_OVERHEAD_GPU: Final = 20_000_000


def training_cost(architecture: Architecture, image_size: int = 32, device: str = "cpu") -> int:
    """Estimated training time of a network in multiply-adds, without its stem and classifier.

    Args:
        architecture: The architecture.
        image_size: Height and width of the images in pixels.
        device: Type of the device, such as ``"cpu"`` or ``"cuda"``.

    Example:
        >>> from ghn_pyg.families.deepnets import DARTS
        >>> darts = Architecture(genotype=DARTS, cells=20, width=32)
        >>> training_cost(darts), training_cost(darts, device="cuda")
        (2249550848, 15871950848)
    """
    plan = plan_network(architecture, image_size=image_size)
    layer_costs = {cell: _costs_per_position(cell, architecture.width) for cell in set(plan.cells)}
    overhead = _LAYER_OVERHEAD_CPU if device == "cpu" else _LAYER_OVERHEAD_GPU
    return sum(
        cost * side * side + overhead
        for cell, side in zip(plan.cells, plan.sides, strict=True)
        for cost in layer_costs[cell]
    )


def _costs_per_position(cell: CellPlan, width: int) -> list[int]:
    """The cost of each layer of a cell for one position of the feature map."""
    shapes = [
        node.params[0][1] if node.params else (width,)
        for _, block, used in cell.blocks()
        if used
        for node in block.nodes
    ]
    return [_COST_PER_OUTPUT * shape[0] + (math.prod(shape) if len(shape) > 1 else 0) for shape in shapes]


def shard_by_cost(costs: Sequence[int], num_shards: int) -> list[list[int]]:
    """Splits items into shards of similar total cost: the most expensive first, each into the cheapest shard.

    Args:
        costs: The cost of each item, at least 1.
        num_shards: Number of shards; none is empty if there are enough items.

    Returns:
        The ascending indices of the items of each shard.

    Example:
        >>> shard_by_cost([2, 7, 3, 4], 2)
        [[0, 1], [2, 3]]
    """
    shards: list[list[int]] = [[] for _ in range(num_shards)]
    totals = [0] * num_shards
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        cheapest = totals.index(min(totals))
        shards[cheapest].append(index)
        totals[cheapest] += costs[index]
    return [sorted(shard) for shard in shards]
