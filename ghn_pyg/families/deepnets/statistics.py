"""Statistics of a split: how large, how deep and of which operations its architectures are."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from ...graph.arch_data import ArchData
from .architecture import Architecture
from .genotype import OPERATIONS
from .graph import architecture_graph
from .layout import count_parameters, reductions
from .widths import evaluation_width

MEASURES: Final = ("nodes", "parameters", "depth", "cells")


class Measured(NamedTuple):
    """One architecture.

    Args:
        nodes: Nodes of its graph.
        parameters: Parameters of its network.
        depth: Edges on the longest path through its graph.
        cells: Number of cells.
        operations: How often each operation occurs in its cells.
    """

    nodes: int
    parameters: int
    depth: int
    cells: int
    operations: collections.Counter[str]


def measure(architecture: Architecture, num_classes: int = 10, image_size: int = 32) -> Measured:
    """Measures an architecture at its own width.

    Example:
        >>> from ghn_pyg.families.deepnets.genotype import DARTS
        >>> measure(Architecture(genotype=DARTS, cells=4))[:4]
        (122, 64554, 45, 4)
    """
    graph = architecture_graph(architecture, num_classes, image_size)
    return Measured(
        nodes=graph.num_nodes,
        parameters=count_parameters(architecture, num_classes, image_size),
        depth=longest_path(graph),
        cells=architecture.cells,
        operations=count_operations(architecture),
    )


def measure_split(split: str, architectures: Iterable[Architecture], image_size: int = 32) -> Iterator[Measured]:
    """Measures architectures of a split at the width at which it is evaluated."""
    width = evaluation_width(split, image_size)
    return (measure(dataclasses.replace(one, width=width), image_size=image_size) for one in architectures)


def longest_path(graph: ArchData) -> int:
    """Number of edges on the longest path through a graph whose nodes stand in topological order.

    Example:
        >>> import torch
        >>> longest_path(ArchData(edge_index=torch.tensor([[0, 0, 1], [1, 2, 2]]), num_nodes=3))
        2
    """
    depths = [0] * graph.num_nodes
    for source, target in sorted(graph.edge_index.t().tolist(), key=lambda edge: edge[1]):
        depths[target] = max(depths[target], depths[source] + 1)
    return max(depths)


def count_operations(architecture: Architecture) -> collections.Counter[str]:
    """How often each operation occurs in the cells of a network."""
    genotype, reducing = architecture.genotype, len(reductions(architecture.cells))
    counts: collections.Counter[str] = collections.Counter()
    for branches, cells in ((genotype.normal, architecture.cells - reducing), (genotype.reduce, reducing)):
        for name, _ in branches:
            counts[name] += cells
    return counts


class Summary(NamedTuple):
    """One quantity over many architectures."""

    mean: float
    std: float
    smallest: int
    median: float
    largest: int


def summarize(measured: Sequence[Measured]) -> dict[str, Summary]:
    """Mean, standard deviation, smallest, median and largest value of each of :data:`MEASURES`.

    Raises:
        ValueError: If there is nothing to summarize.
    """
    if not measured:
        raise ValueError("expected one architecture at least, got none")
    columns = {name: np.array([getattr(one, name) for one in measured]) for name in MEASURES}
    return {
        name: Summary(
            float(values.mean()), float(values.std()), int(values.min()), float(np.median(values)), int(values.max())
        )
        for name, values in columns.items()
    }


def operation_shares(measured: Iterable[Measured]) -> dict[str, float]:
    """Share of each operation among all operations of the architectures, in the order of :data:`OPERATIONS`.

    Raises:
        ValueError: If there are no operations.
    """
    counts: collections.Counter[str] = collections.Counter()
    for one in measured:
        counts.update(one.operations)
    if not (total := counts.total()):
        raise ValueError("expected one architecture at least, got none")
    return {name: counts[name] / total for name in OPERATIONS}
