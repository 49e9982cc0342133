"""Architecture → its graph, without building the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch

from ...graph.arch_data import NO_SHAPE, ArchData, NodeShape, ParamSpec
from ...graph.node_types import PRIMITIVE_ID
from ...transforms import shortest_paths
from .architecture import Architecture
from .blocks import INPUT, Node, Param, append_block, append_join
from .network_plan import CellPlan, plan_network

BEFORE: Final = INPUT - 1
"""Stands for a cell's input from the cell before the last; :data:`INPUT` for that from the last cell."""

UNUSED: Final = "the forward pass does not use it"


def architecture_graph(
    architecture: Architecture, num_classes: int = 10, image_size: int = 32, width: int | None = None,
    hidden: int | None = None, auxiliary: bool = False, cutoff: int = 50,
) -> ArchData:  # fmt: skip
    """The graph of an architecture's network, computed without the network.

    It equals the graph that :func:`~ghn_pyg.from_module` traces from the built
    :class:`~ghn_pyg.families.deepnets.Network`, node by node.

    Arguments and errors are those of the network; ``cutoff`` is the largest shortest-path distance to keep.

    Example:
        >>> from ghn_pyg.families.deepnets import DARTS
        >>> architecture_graph(Architecture(genotype=DARTS, cells=20)).num_nodes
        794
    """
    plan = plan_network(architecture, num_classes, image_size, width, hidden, auxiliary)
    graph = _GraphBuilder()
    source = 0  # the input node
    stem = []
    for name, block in plan.stem[: plan.stem_used]:
        source = graph.add(name, _columns(block.nodes), (source,))
        stem.append(source)
    before, last = stem[plan.fork], stem[-1]
    cache: dict[tuple[CellPlan, bool], _Columns] = {}
    for position, cell in enumerate(plan.cells):
        output = -1  # of a cell that nothing uses
        if cell.wiring.output:
            key = (cell, before == last)
            if key not in cache:
                cache[key] = _columns(*_cell_nodes(*key))
            output = graph.add(f"cells.{position}", cache[key], (before, last))
        before, last = last, output
        if plan.auxiliary is not None and position == plan.auxiliary_cell:
            graph.add(plan.auxiliary[0], _columns(plan.auxiliary[1].nodes), (last,))
    for name, block in plan.head:
        last = graph.add(name, _columns(block.nodes), (last,))
    unused = {
        name + suffix: shape
        for name, block, used in plan.blocks()
        if not used
        for node in block.nodes
        for suffix, shape, _ in node.params
    }
    return graph.build(unused, cutoff)


def _cell_nodes(cell: CellPlan, same_input: bool) -> tuple[list[Node], int]:
    """The nodes of a cell and its output, whose inputs are indices among them, :data:`INPUT` or :data:`BEFORE`."""
    nodes: list[Node] = []
    counts = {"sum": 0, "concat": 0}

    def join(node_type: str, sources: list[int]) -> int:
        size, count = len(nodes), counts[node_type]
        index = append_join(nodes, node_type, f":{node_type}#{count + 1}" if count else f":{node_type}", sources)
        counts[node_type] += len(nodes) > size
        return index

    states: list[int | None] = []
    for number, source in enumerate((INPUT if same_input else BEFORE, INPUT)):
        used, block = cell.wiring.inputs[number], cell.preprocess[number]
        states.append(append_block(nodes, f".preprocess{number}", block, source) if used else None)
    for step in range(0, len(cell.states), 2):
        terms = []
        for branch in (step, step + 1):
            state = states[cell.states[branch]]
            if cell.wiring.branches[branch] and state is not None:
                terms.append(append_block(nodes, f"._ops.{branch}", cell.operations[branch], state))
        states.append(join("sum", terms) if terms else None)
    return nodes, join("concat", [output for state in cell.concat if (output := states[state]) is not None])


class _Columns(NamedTuple):
    """Nodes by column, and their edges as targets and sources."""

    types: list[int]
    names: list[str]
    params: list[tuple[Param, ...]]
    shapes: list[NodeShape]
    targets: list[int]
    sources: list[int]
    output: int


def _columns(nodes: Sequence[Node], output: int | None = None) -> _Columns:
    """Splits nodes into columns; by default the last node is the output."""
    types, names, params, shapes, inputs = map(list, zip(*nodes, strict=True)) if nodes else ([], [], [], [], [])
    targets = [index for index, entering in enumerate(inputs) for _ in entering]
    sources = [source for entering in inputs for source in entering]
    return _Columns(types, names, params, shapes, targets, sources, len(nodes) - 1 if output is None else output)


class _GraphBuilder:
    """A graph that grows block by block from its input node."""

    def __init__(self) -> None:
        self.types = [PRIMITIVE_ID["input"]]
        self.names = ["input"]
        self.params: list[list[ParamSpec]] = [[]]
        self.shapes = [NO_SHAPE]
        self.targets: list[int] = []
        self.sources: list[int] = []

    def add(self, name: str, nodes: _Columns, inputs: tuple[int, ...]) -> int:
        """Appends nodes, in which a negative source is an index into ``inputs``; returns the index of the output."""
        base = len(self.types)
        self.types += nodes.types
        self.names += [name + suffix for suffix in nodes.names]
        self.params += [
            [ParamSpec(name + suffix, shape, role) for suffix, shape, role in params] for params in nodes.params
        ]
        self.shapes += nodes.shapes
        self.targets += [base + target for target in nodes.targets]
        self.sources += [base + source if source >= 0 else inputs[source] for source in nodes.sources]
        return base + nodes.output if nodes.output >= 0 else inputs[nodes.output]

    def build(self, unused: dict[str, tuple[int, ...]], cutoff: int) -> ArchData:
        """The graph, with its edges sorted by target."""
        size = len(self.types)
        edges = np.array([self.sources, self.targets])
        edge_index = torch.from_numpy(edges[:, np.lexsort(edges)])
        return ArchData(
            node_type=torch.from_numpy(np.array(self.types)),
            edge_index=edge_index,
            node_shape=torch.from_numpy(np.array(self.shapes)),
            classifier=torch.arange(size) >= size - 2,
            distance=shortest_paths(edge_index, size, cutoff).flatten(),
            params=self.params,
            node_names=self.names,
            kept=dict.fromkeys(unused, UNUSED),
            kept_shapes=unused,
            tied={},
            num_nodes=size,
        )
