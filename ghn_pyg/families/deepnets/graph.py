"""Architecture → its graph, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch

from ...graph.arch_data import NO_SHAPE, ArchData, NodeShape, ParamSpec
from ...graph.node_types import PRIMITIVE_ID
from ...transforms import shortest_paths
from .architecture import Architecture
from .layout import CellLayout, Layout, lay_out
from .parts import INPUT, Node, Param, extend, join

BEFORE: Final = INPUT - 1
"""Stands for what enters a cell from the cell before the last; :data:`INPUT` for what enters from the last."""

NOWHERE: Final = -1
"""Stands for the output of a cell that nothing depends on."""

UNUSED: Final = "the forward pass does not use it"


def architecture_graph(
    architecture: Architecture, num_classes: int = 10, image_size: int = 32, width: int | None = None,
    hidden: int | None = None, auxiliary: bool = False, cutoff: int = 50,
) -> ArchData:  # fmt: skip
    """The graph of an architecture's network, from the structure alone.

    It equals the graph that :func:`~ghn_pyg.from_module` finds in the built
    :class:`~ghn_pyg.families.deepnets.network.Network`, node by node.

    Args:
        architecture: The architecture.
        num_classes: Number of classes.
        image_size: Height and width of the images in pixels.
        width: Channels of the first cells; by default as in ``architecture``.
        hidden: Hidden size of the classifier; by default as in ``architecture``.
        auxiliary: Whether there is a second classifier.
        cutoff: Largest shortest-path distance that is kept.

    Raises:
        TypeError: If an argument is no integer.
        ValueError: If the network cannot be built; see :class:`~ghn_pyg.families.deepnets.network.Network`.

    Example:
        >>> from ghn_pyg.families.deepnets.genotype import DARTS
        >>> architecture_graph(Architecture(genotype=DARTS, cells=20)).num_nodes
        794
    """
    layout = lay_out(architecture, num_classes, image_size, width, hidden, auxiliary)
    graph = _Graph()
    source = graph.input
    stems = []
    for name, part in layout.stem[: layout.stem_used]:
        source = graph.add(name, _columns(part.nodes), (source,))
        stems.append(source)
    before, last = stems[layout.fork], stems[-1]
    known: dict[tuple[CellLayout, bool], _Columns] = {}
    for position, cell in enumerate(layout.cells):
        if cell.wiring.output:
            key = (cell, before == last)
            if key not in known:
                known[key] = _columns(*cell_nodes(*key))
            output = graph.add(f"cells.{position}", known[key], (before, last))
        else:
            output = NOWHERE
        before, last = last, output
        if layout.auxiliary is not None and position == layout.auxiliary_cell:
            graph.add(layout.auxiliary[0], _columns(layout.auxiliary[1].nodes), (last,))
    for name, part in layout.head:
        last = graph.add(name, _columns(part.nodes), (last,))
    return graph.finish(unused_parameters(layout), cutoff)


def cell_nodes(cell: CellLayout, same: bool) -> tuple[list[Node], int]:
    """The nodes of a cell.

    Args:
        cell: The cell.
        same: Whether one node gives both of its inputs.

    Returns:
        The nodes, whose inputs are positions among them, :data:`INPUT` or :data:`BEFORE`, and the output likewise.
    """
    nodes: list[Node] = []
    names = {"sum": 0, "concat": 0}

    def joined(kind: str, sources: list[int]) -> int:
        count, before = names[kind], len(nodes)
        place = join(nodes, kind, f":{kind}#{count + 1}" if count else f":{kind}", sources)
        names[kind] += len(nodes) > before
        return place

    states: list[int | None] = []
    for number, source in enumerate((INPUT if same else BEFORE, INPUT)):
        used, part = cell.wiring.inputs[number], cell.preprocess[number]
        states.append(extend(nodes, f".preprocess{number}", part, source) if used else None)
    for place in range(0, len(cell.states), 2):
        terms = [
            extend(nodes, f"._ops.{branch}", cell.operations[branch], states[cell.states[branch]])  # type: ignore[arg-type]
            for branch in (place, place + 1)
            if cell.wiring.branches[branch]
        ]
        states.append(joined("sum", terms) if terms else None)
    output = joined("concat", [end for state in cell.concat if (end := states[state]) is not None])
    return nodes, output


def unused_parameters(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters that the output does not depend on, in the order of the network's."""
    unused = list(layout.stem[layout.stem_used :])
    for position, cell in enumerate(layout.cells):
        unused += [(f"cells.{position}{name}", part) for name, part, used in cell.parts() if not used]
    return {name + short: shape for name, part in unused for node in part.nodes for short, shape, _ in node.params}


class _Columns(NamedTuple):
    """Nodes, column by column, and their edges as targets and sources."""

    kinds: list[int]
    names: list[str]
    params: list[tuple[Param, ...]]
    shapes: list[NodeShape]
    targets: list[int]
    sources: list[int]
    output: int


def _columns(nodes: Sequence[Node], output: int | None = None) -> _Columns:
    """By default the last node gives the output."""
    kinds, names, params, shapes, inputs = map(list, zip(*nodes, strict=True)) if nodes else ([], [], [], [], [])
    targets = [place for place, entering in enumerate(inputs) for _ in entering]
    sources = [source for entering in inputs for source in entering]
    return _Columns(kinds, names, params, shapes, targets, sources, len(nodes) - 1 if output is None else output)


class _Graph:
    """A graph that grows part by part."""

    input: Final = 0

    def __init__(self) -> None:
        self.kinds = [PRIMITIVE_ID["input"]]
        self.names = ["input"]
        self.params: list[list[ParamSpec]] = [[]]
        self.shapes = [NO_SHAPE]
        self.targets: list[int] = []
        self.sources: list[int] = []

    def add(self, name: str, nodes: _Columns, entering: tuple[int, ...]) -> int:
        """Appends nodes, in which negative places stand for what enters; returns the node that gives the output."""
        base = len(self.kinds)
        self.kinds += nodes.kinds
        self.names += [name + own for own in nodes.names]
        self.params += [
            [ParamSpec(name + short, shape, role) for short, shape, role in params] for params in nodes.params
        ]
        self.shapes += nodes.shapes
        self.targets += [base + target for target in nodes.targets]
        self.sources += [base + source if source >= 0 else entering[source] for source in nodes.sources]
        return base + nodes.output if nodes.output >= 0 else entering[nodes.output]

    def finish(self, unused: dict[str, tuple[int, ...]], cutoff: int) -> ArchData:
        """The graph as data, its edges in the order of their targets."""
        size = len(self.kinds)
        edges = np.array([self.sources, self.targets])
        edge_index = torch.from_numpy(edges[:, np.lexsort(edges)])
        return ArchData(
            node_type=torch.from_numpy(np.array(self.kinds)),
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
