"""The graph of an architecture as a published file holds it: names, and wiring with its repairs."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ...graph.arch_data import NO_SHAPE, ArchData, NodeShape, ParamSpec
from ...graph.node_types import PRIMITIVE_ID, PRIMITIVES
from ...transforms import shortest_paths
from ...utils.suggest import similar
from .graph import UNUSED, unused_parameters
from .layout import Layout
from .parts import Part
from .published_files import DatasetError

Array = NDArray[Any]

_KINDS: Final = {**PRIMITIVE_ID, "conv_1x1": PRIMITIVE_ID["conv"]}
_JOINS: Final = np.array([kind in ("sum", "concat", "cse") for kind in PRIMITIVES])
"""Types of which a node may have several predecessors."""
_POOL: Final[NodeShape] = (1, 1, 3, 3)
_WITHOUT_PARAMETERS: Final[dict[int, NodeShape]] = {
    **{PRIMITIVE_ID[kind]: NO_SHAPE for kind in ("input", "sum", "concat", "msa", "cse", "glob_avg")},
    **{PRIMITIVE_ID[kind]: _POOL for kind in ("max_pool", "avg_pool")},
}
_INPUT: Final = PRIMITIVE_ID["input"]
_NO_NODE: Final = "the published graph has no node for it"

_OUTSIDE_CELLS: Final = re.compile(r"(stem\d?|pos_enc|classifier)(\.|$)")
_OLD_NAMES: Final = (
    (re.compile(r"^_ops\.(\d+)\.(?=\d)"), r"_ops.\1.op."),
    (re.compile(r"(?<!\.attn)\.(?=to_(qkv|out)\.)"), ".attn."),
    (re.compile(r"\.to_out\.0\.?$"), ".to_out.0.weight"),
)


class Vocabulary:
    """The meanings of the ids in one split of a published file.

    Args:
        meta: ``{"primitives_ext": {id: type}, "unique_op_names": {id: name}}``, as the JSON file has it.

    Raises:
        DatasetError: If it is something else.
    """

    def __init__(self, meta: Any) -> None:
        self._types = _by_id(meta, "primitives_ext")
        self._kinds = {position: _KINDS[kind] for position, kind in self._types.items() if kind in _KINDS}
        self._names = {}
        for position, text in _by_id(meta, "unique_op_names").items():
            name = current_name(text)
            self._names[position] = (name, _OUTSIDE_CELLS.match(name) is None)

    def decode(self, nodes: Array) -> tuple[Array, list[str]]:
        """Says what the nodes of a graph are.

        Args:
            nodes: Ids of the type, number of the cell and ids of the name in the cell, of shape :math:`(N, 3)`.

        Returns:
            Their types, positions in :data:`~ghn_pyg.PRIMITIVES`, and their whole names.

        Raises:
            DatasetError: If an id or its type is unknown.
        """
        kinds, names = [], []
        for node, (kind, cell, position) in enumerate(nodes.tolist()):
            if kind not in self._kinds:
                known = repr(self._types[kind]) if kind in self._types else f"with the id {kind}"
                raise DatasetError(f"node {node} is of an unknown type, {known}; types are {', '.join(_KINDS)}")
            if position not in self._names:
                raise DatasetError(f"node {node} has a name with the unknown id {position}")
            name, inside = self._names[position]
            kinds.append(self._kinds[kind])
            names.append(f"cells.{cell}.{name}" if inside else name)
        return np.array(kinds), names


def _by_id(meta: Any, key: str) -> dict[int, str]:
    texts = meta.get(key) if isinstance(meta, Mapping) else None
    if not isinstance(texts, Mapping) or not all(
        position.isdecimal() and len(position) < 9 and isinstance(text, str) for position, text in texts.items()
    ):
        raise DatasetError(f"it has no table {key!r} of ids and names")
    return {int(position): text for position, text in texts.items()}


def current_name(name: str) -> str:
    """The name, inside its cell, of a parameter that a published file may give by an older name.

    Example:
        >>> current_name("_ops.1.to_out.0.")
        '_ops.1.attn.to_out.0.weight'
        >>> current_name("_ops.0.2.weight")
        '_ops.0.op.2.weight'
    """
    for old, new in _OLD_NAMES:
        name = old.sub(new, name)
    return name


def direct_edges(distances: Array) -> Array:
    """The edges of a graph, sorted by target and source.

    Args:
        distances: Shortest-path distances of shape :math:`(N, N)`; 1 is an edge.

    Returns:
        Edges of shape :math:`(2, E)`.

    Example:
        >>> direct_edges(np.array([[0, 1, 1], [0, 0, 2], [0, 0, 0]])).tolist()
        [[0, 0], [1, 2]]
    """
    # On one dimension NumPy finds them ten times faster than on two.
    edges = np.stack(np.divmod(np.flatnonzero(distances == 1), len(distances)))
    return edges[:, np.argsort(edges[1], kind="stable")]


def repair(edges: Array, kinds: Array, names: Sequence[str]) -> Array:
    """The edges of a published graph without its wiring faults.

    A node that joins nothing keeps the first of its predecessors. Where a stem has two outputs, the last successor of
    the first one, ``stem0``, belongs to the second one, ``stem1``, if ``stem0`` has several successors, the last two
    of them are no neighbours, and ``stem1`` has one.

    Args:
        edges: Edges of shape :math:`(2, E)`, sorted by target and source.
        kinds: Types of shape :math:`(N,)`.
        names: The whole name of each node.

    Returns:
        Edges of shape :math:`(2, E')`, sorted by source and target.
    """
    first = np.diff(edges[1], prepend=-1) > 0
    sources, targets = edges[:, first | _JOINS[kinds[edges[1]]]]
    stems = [[node for node, name in enumerate(names) if name.startswith(stem)] for stem in ("stem0.", "stem1.")]
    if all(stems):
        _rewire_stem(sources, targets, stems[0][-1], stems[1][-1])
    numbers = np.sort(sources * len(names) + targets)
    numbers = numbers[np.diff(numbers, prepend=-1) > 0]  # a rewired edge may have been there before
    return np.stack(np.divmod(numbers, len(names)))


def _rewire_stem(sources: Array, targets: Array, stem0: int, stem1: int) -> None:
    """Gives the last successor of ``stem0`` to ``stem1``, in place; targets are sorted."""
    successors = np.flatnonzero(sources == stem0)
    if len(successors) > 1 and (sources == stem1).sum() == 1:
        before, last = targets[successors[-2:]]
        if last - before > 1:
            sources[successors[-1]] = stem1


def topological_order(edges: Array, num_nodes: int) -> list[int]:
    """The nodes in an order in which every edge points forward; of several such orders the one nearest to theirs.

    Raises:
        DatasetError: If there is none.

    Example:
        >>> topological_order(np.array([[0, 3, 2], [2, 1, 1]]), 4)
        [0, 2, 3, 1]
    """
    users: list[list[int]] = [[] for _ in range(num_nodes)]
    for source, target in edges.T.tolist():
        users[source].append(target)
    waiting = np.bincount(edges[1], minlength=num_nodes).tolist()
    ready = [node for node, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for user in users[order[-1]]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)
    if len(order) < num_nodes:
        node = next(node for node, count in enumerate(waiting) if count)
        raise DatasetError(f"its graph has a cycle, at or before node {node}")
    return order


def published_graph(layout: Layout, edges: Array, kinds: Array, cells: Array, names: Sequence[str]) -> ArchData:
    """The graph of a published architecture, in the published order where that is topological.

    Args:
        layout: Its network.
        edges: Edges of shape :math:`(2, E)`.
        kinds: Types of shape :math:`(N,)`, positions in :data:`~ghn_pyg.PRIMITIVES`.
        cells: The cell of each node, of shape :math:`(N,)`.
        names: The whole name of each node.

    Raises:
        DatasetError: If the graph has a cycle, or names a parameter that the network does not have.
    """
    size = len(names)
    if (edges[0] >= edges[1]).any():
        order = np.array(topological_order(edges, size))
        place = np.argsort(order)
        edges = place[edges]
        kinds, cells, names = kinds[order], cells[order], [names[node] for node in order]
    edge_index = torch.from_numpy(edges[:, np.lexsort(edges[::-1])])
    params, shapes, left = _parameters(layout, kinds, names)
    last_layer = {name + node.name for name, part in layout.head[-1:] for node in part.nodes[-2:]}
    return ArchData(
        node_type=torch.from_numpy(kinds),
        edge_index=edge_index,
        node_shape=torch.from_numpy(np.array(shapes)),
        classifier=torch.from_numpy(np.array([name in last_layer for name in names])),
        distance=shortest_paths(edge_index, size).flatten(),
        params=params,
        node_names=_node_names(params, kinds, cells),
        kept={name: reason for name, (reason, _) in left.items()},
        kept_shapes={name: shape for name, (_, shape) in left.items()},
        tied={},
        num_nodes=size,
    )


def _parameters(
    layout: Layout, kinds: Array, names: Sequence[str]
) -> tuple[list[list[ParamSpec]], list[NodeShape], dict[str, tuple[str, tuple[int, ...]]]]:
    """Parameters and shape of each node, and the parameters of the network without one: reason and shape."""
    table = _parameter_nodes(layout)
    params: list[list[ParamSpec]] = []
    shapes: list[NodeShape] = []
    for kind, name in zip(kinds.tolist(), names, strict=True):
        if kind in _WITHOUT_PARAMETERS:
            found, shape = list[ParamSpec](), _WITHOUT_PARAMETERS[kind]
        elif name in table:
            found, shape = table.pop(name)
        else:
            raise DatasetError(_unknown(name, layout))
        params.append(found)
        shapes.append(shape)
    unused = unused_parameters(layout) if table else {}
    left = [param for found, _ in table.values() for param in found]
    return params, shapes, {p.name: (UNUSED if p.name in unused else _NO_NODE, p.shape) for p in left}


def _parameter_nodes(layout: Layout) -> dict[str, tuple[list[ParamSpec], NodeShape]]:
    """Parameters and shape of each node that has parameters, by its name, in the order of the network."""
    return {
        prefix + name: ([ParamSpec(prefix + short, size, role) for short, size, role in params], shape)
        for prefix, part in _parts(layout)
        for _, name, params, shape, _ in part.nodes
        if params
    }


def _parts(layout: Layout) -> Iterator[tuple[str, Part]]:
    yield from layout.stem
    for position, cell in enumerate(layout.cells):
        for name, part, _ in cell.parts():
            yield f"cells.{position}{name}", part
    yield from layout.head


def _unknown(name: str, layout: Layout) -> str:
    names = _parameter_nodes(layout)
    if name in names:
        return f"two nodes have the name {name!r}"
    near = similar(name, names)
    hint = f"; near it are {', '.join(near)}" if near else ""
    return f"it names a parameter {name!r}, which its network does not have{hint}"


def _node_names(params: Sequence[Sequence[ParamSpec]], kinds: Array, cells: Array) -> list[str]:
    """A name for each node: its first parameter, or the cell and type of its operation, numbered where needed."""
    counts: Counter[str] = Counter()
    names = []
    for found, kind, cell in zip(params, kinds.tolist(), cells.tolist(), strict=True):
        if found:
            names.append(found[0].name)
            continue
        name = "input" if kind == _INPUT else f"cells.{cell}:{PRIMITIVES[kind]}"
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return names
