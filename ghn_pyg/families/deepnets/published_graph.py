"""Decodes the graph of an architecture in a published file, and repairs its wiring faults."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray

from ...graph.arch_data import NO_SHAPE, ArchData, NodeShape, ParamSpec
from ...graph.node_types import PRIMITIVE_ID, PRIMITIVES
from ...transforms import shortest_paths
from ...utils.suggest import suggestion
from .graph_from_architecture import UNUSED
from .network_plan import NetworkPlan
from .published_json import DatasetError

Array = NDArray[Any]

_TYPES: Final = {**PRIMITIVE_ID, "conv_1x1": PRIMITIVE_ID["conv"]}
_IS_JOIN: Final = np.array([name in ("sum", "concat", "cse") for name in PRIMITIVES])
"""Types whose nodes may have several predecessors."""
_PARAMETERLESS: Final[dict[int, NodeShape]] = {
    **{PRIMITIVE_ID[name]: NO_SHAPE for name in ("input", "sum", "concat", "msa", "cse", "glob_avg")},
    **{PRIMITIVE_ID[name]: (1, 1, 3, 3) for name in ("max_pool", "avg_pool")},
}
_NO_NODE: Final = "the published graph has no node for it"

_OUTSIDE_CELLS: Final = re.compile(r"(stem\d?|pos_enc|classifier)(\.|$)")
_OLD_NAMES: Final = (
    (re.compile(r"^_ops\.(\d+)\.(?=\d)"), r"_ops.\1.op."),
    (re.compile(r"(?<!\.attn)\.(?=to_(qkv|out)\.)"), ".attn."),
    (re.compile(r"\.to_out\.0\.?$"), ".to_out.0.weight"),
)


class Vocabulary:
    """The types and names of the ids in one split, from a JSON file's tables of both."""

    def __init__(self, meta: Any) -> None:
        try:
            self._types = {int(i): _TYPES[name] for i, name in meta["primitives_ext"].items() if name in _TYPES}
            names = {int(i): current_name(name) for i, name in meta["unique_op_names"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DatasetError("expected the tables 'primitives_ext' and 'unique_op_names' of ids and names") from error
        self._names = {i: (name, _OUTSIDE_CELLS.match(name) is None) for i, name in names.items()}

    def decode(self, nodes: Array) -> tuple[Array, list[str]]:
        """Maps (type id, cell, name id) of each node to indices into :data:`~ghn_pyg.PRIMITIVES` and full names."""
        types, names = [], []
        for node, (type_id, cell, name_id) in enumerate(nodes.tolist()):
            if type_id not in self._types or name_id not in self._names:
                raise DatasetError(f"node {node} has the type id {type_id} and the name id {name_id}, one unknown")
            name, in_cell = self._names[name_id]
            types.append(self._types[type_id])
            names.append(f"cells.{cell}.{name}" if in_cell else name)
        return np.array(types), names


def current_name(name: str) -> str:
    """The current name, inside its cell, of a parameter that a published file may call by an older name.

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
    """The pairs at distance 1 of shape (2, E), sorted by target and source.

    Example:
        >>> direct_edges(np.array([[0, 1, 1], [0, 0, 2], [0, 0, 0]])).tolist()
        [[0, 0], [1, 2]]
    """
    # flatnonzero is ten times faster than nonzero on two dimensions.
    return np.stack(np.divmod(np.flatnonzero(distances.T == 1), len(distances))[::-1])


def repair_wiring(edges: Array, types: Array, names: Sequence[str]) -> Array:
    """Removes the wiring faults of the published generator.

    A node that is no join keeps the first of its predecessors. Where a stem has two outputs, the last successor of
    ``stem0`` belongs to ``stem1`` if ``stem0`` has several successors, the last two of which are not adjacent, and
    ``stem1`` has one.

    The edges of shape (2, E) are sorted by target and source, those returned by source and target.
    """
    is_first = np.diff(edges[1], prepend=-1) > 0
    sources, targets = edges[:, is_first | _IS_JOIN[types[edges[1]]]]
    stems = [[node for node, name in enumerate(names) if name.startswith(stem)] for stem in ("stem0.", "stem1.")]
    if all(stems):
        stem0, stem1 = stems[0][-1], stems[1][-1]
        successors = np.flatnonzero(sources == stem0)
        if len(successors) > 1 and (sources == stem1).sum() == 1:
            before, last = targets[successors[-2:]]
            if last - before > 1:
                sources[successors[-1]] = stem1
    # A rewired edge may duplicate another.
    return np.stack(np.divmod(np.unique(sources * len(names) + targets), len(names)))


def topological_order(edges: Array, num_nodes: int) -> list[int]:
    """The topological order that is closest to the given order of the nodes."""
    graph = nx.DiGraph(edges.T.tolist())
    graph.add_nodes_from(range(num_nodes))
    try:
        return list(nx.lexicographical_topological_sort(graph))
    except nx.NetworkXUnfeasible as error:
        raise DatasetError("its graph has a cycle") from error


def published_graph(plan: NetworkPlan, edges: Array, types: Array, cells: Array, names: Sequence[str]) -> ArchData:
    """Builds the graph from its edges (2, E) and the type, cell and full name of each node."""
    size = len(names)
    if (edges[0] >= edges[1]).any():
        order = np.array(topological_order(edges, size))
        edges = np.argsort(order)[edges]
        types, cells, names = types[order], cells[order], [names[node] for node in order]
    edge_index = torch.from_numpy(edges[:, np.lexsort(edges[::-1])])
    available = {
        prefix + node.name: (
            [ParamSpec(prefix + suffix, shape, role) for suffix, shape, role in node.params],
            node.shape,
            used,
        )
        for prefix, block, used in plan.blocks()
        for node in block.nodes
        if node.params
    }
    last_layer = {name + node.name for name, block in plan.head[-1:] for node in block.nodes[-2:]}
    params: list[list[ParamSpec]] = []
    shapes: list[NodeShape] = []
    node_names: list[str] = []
    counts: Counter[str] = Counter()
    for node_type, cell, name in zip(types.tolist(), cells.tolist(), names, strict=True):
        if node_type in _PARAMETERLESS:
            params.append([])
            shapes.append(_PARAMETERLESS[node_type])
            label = "input" if node_type == PRIMITIVE_ID["input"] else f"cells.{cell}:{PRIMITIVES[node_type]}"
            counts[label] += 1
            node_names.append(label if counts[label] == 1 else f"{label}#{counts[label]}")
        elif name in available:
            specs, shape, _ = available.pop(name)
            params.append(specs)
            shapes.append(shape)
            node_names.append(specs[0].name)
        else:
            hint = suggestion(name, available)
            raise DatasetError(f"its graph has a parameter {name!r} twice, or its network does not have it{hint}")
    unassigned = [(spec, used) for specs, _, used in available.values() for spec in specs]
    return ArchData(
        node_type=torch.from_numpy(types),
        edge_index=edge_index,
        node_shape=torch.from_numpy(np.array(shapes)),
        classifier=torch.from_numpy(np.array([name in last_layer for name in names])),
        distance=shortest_paths(edge_index, size).flatten(),
        params=params,
        node_names=node_names,
        kept={spec.name: _NO_NODE if used else UNUSED for spec, used in unassigned},
        kept_shapes={spec.name: spec.shape for spec, _ in unassigned},
        tied={},
        num_nodes=size,
    )
