"""Statistics of a split: the size, depth and operations of its architectures."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import rustworkx as rx

from .architecture import Architecture
from .genotype import OPERATIONS
from .graph_from_architecture import architecture_graph
from .network_plan import count_parameters, reduction_cells
from .width_sampling import evaluation_width

MEASURES: Final = ("nodes", "parameters", "depth", "cells")


class Measured(NamedTuple):
    """The measures of one architecture; ``depth`` is the number of edges on the longest path through its graph."""

    nodes: int
    parameters: int
    depth: int
    cells: int
    operations: collections.Counter[str]


def measure(architecture: Architecture, num_classes: int = 10, image_size: int = 32) -> Measured:
    """Measures an architecture at its own width.

    Example:
        >>> from ghn_pyg.families.deepnets import DARTS
        >>> measure(Architecture(genotype=DARTS, cells=4))[:4]
        (122, 64554, 45, 4)
    """
    graph = architecture_graph(architecture, num_classes, image_size)
    digraph: rx.PyDiGraph[None, None] = rx.PyDiGraph()
    digraph.extend_from_edge_list([(source, target) for source, target in graph.edge_index.t().tolist()])
    return Measured(
        nodes=graph.num_nodes,
        parameters=count_parameters(architecture, num_classes, image_size),
        depth=rx.dag_longest_path_length(digraph),
        cells=architecture.cells,
        operations=_count_operations(architecture),
    )


def measure_split(split: str, architectures: Iterable[Architecture], image_size: int = 32) -> Iterator[Measured]:
    """Measures architectures of a split at the width at which they are evaluated."""
    width = evaluation_width(split, image_size)
    return (measure(architecture.replace(width=width), image_size=image_size) for architecture in architectures)


def _count_operations(architecture: Architecture) -> collections.Counter[str]:
    genotype, reducing = architecture.genotype, len(reduction_cells(architecture.cells))
    counts: collections.Counter[str] = collections.Counter()
    for branches, cells in ((genotype.normal, architecture.cells - reducing), (genotype.reduce, reducing)):
        for name, _ in branches:
            counts[name] += cells
    return counts


class Summary(NamedTuple):
    """One measure over many architectures."""

    mean: float
    std: float
    smallest: int
    median: float
    largest: int


def summarize(measured: Sequence[Measured]) -> dict[str, Summary]:
    """Summarizes each of :data:`MEASURES` over at least one architecture."""
    columns = {name: np.array([getattr(one, name) for one in measured]) for name in MEASURES}
    return {
        name: Summary(
            float(values.mean()), float(values.std()), int(values.min()), float(np.median(values)), int(values.max())
        )
        for name, values in columns.items()
    }


def operation_shares(measured: Iterable[Measured]) -> dict[str, float]:
    """Share of each of :data:`OPERATIONS` among all operations of at least one architecture."""
    counts: collections.Counter[str] = collections.Counter()
    for one in measured:
        counts.update(one.operations)
    return {name: counts[name] / counts.total() for name in OPERATIONS}
