"""Shortest-path distances of any graph."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import rustworkx
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from ..utils.memory_guard import check_room
from .base import Transform
from .batched_bfs import LARGEST, distances_together
from .checks import check_ends, edges_of

_LONGEST: Final = np.iinfo(np.int16).max
_BYTES_PER_PAIR: Final = 12
_BYTES_PER_NEAR_PAIR: Final = 56
_WHOLE: Final = 1 << 25
"""Pairs whose distances are computed together as floating-point numbers (270 MB), in the shortest time."""
_PAIRS_AT_A_TIME: Final = 1 << 22
_SMALL: Final = 128
_INSTEAD: Final = "keep those within a small distance alone with AddShortestPathPairs(cutoff)"


class AddShortestPathDistance(Transform):
    r"""Adds the attribute ``distance``: shortest-path distances of all pairs of nodes, flattened to :math:`(N^2,)`.

    Flattened, graphs of different size batch by plain concatenation. Entry :math:`u N + v` is the number of edges on
    the shortest path from :math:`u` to :math:`v`, and 0 for the node itself and where there is no path. Breadth-first
    search in compiled code, for ``pre_transform`` and ``transform``. A ``Batch``, and :meth:`many` graphs, are searched
    all at once, several times faster than one by one, with the same result. Time grows with :math:`N (N + E)`. While
    they are computed, distances take 12 bytes for each pair, and from about 5,800 nodes on no more than the result, so
    that 30,000 nodes fit into 2 GB.

    Args:
        cutoff: Largest distance that is kept; longer ones become 0. By default all are.
        directed: Whether paths follow the direction of edges.

    Shapes:
        - **output:** uint8 with a ``cutoff`` of up to 254, else int16

    Raises:
        ValueError: If ``cutoff`` is not between 1 and 32,767, or without one a distance is larger.
        MemoryError: If there is no room for the :math:`N^2` numbers; nothing was changed then.

    Example:
        >>> data = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
        >>> AddShortestPathDistance()(data).distance.view(3, 3).tolist()
        [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
        >>> AddShortestPathDistance(directed=True)(data).distance.view(3, 3).tolist()
        [[0, 1, 2], [0, 0, 1], [0, 0, 0]]
        >>> [graph.distance.tolist() for graph in AddShortestPathDistance(cutoff=1).many([data, data])]
        [[0, 1, 0, 1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1, 0, 1, 0]]
    """

    def __init__(self, cutoff: int | None = None, directed: bool = False) -> None:
        _check_cutoff(cutoff)
        self.cutoff = cutoff
        self.directed = directed

    def forward(self, data: Data) -> Data:
        """Returns ``data`` with its distances."""
        if isinstance(data, Batch):
            sizes = np.diff(data.ptr.cpu().numpy())
            data.distance = torch.from_numpy(self._together(edges_of(data).cpu().numpy(), sizes))
            let_take_apart(data, "distance")
        else:
            distance = self._alone(edges_of(data), data.num_nodes)
            data.distance = torch.from_numpy(distance.astype(_type(self.cutoff), copy=False).ravel())
        return data

    def many(self, graphs: Iterable[Data]) -> list[Data]:
        """Returns copies of the graphs with their distances, searched all at once: for a whole data set.

        Raises:
            ValueError: As for one graph.
            TypeError: If ``graphs`` is a batch.
            MemoryError: If there is no room for the distances of all.
        """
        if isinstance(graphs, Batch):
            raise TypeError("many expected graphs one by one, got a Batch; call the transform itself with it")
        graphs = list(graphs)
        edge_index = [edges_of(data) for data in graphs]
        sizes = np.array([data.num_nodes for data in graphs], dtype=np.int64)
        edges = torch.cat([torch.empty(2, 0, dtype=torch.long), *edge_index], dim=1).cpu().numpy()
        graph = np.repeat(np.arange(len(sizes)), [edge.size(1) for edge in edge_index])
        wrong = ((edges < 0) | (edges >= sizes[graph])).any(0)
        if wrong.any():
            first = graph[wrong.argmax()]
            ends = edges[:, graph == first]
            check_ends(ends.min(), ends.max(), sizes[first])
        distance = self._together(edges + (np.cumsum(sizes) - sizes)[graph], sizes)
        found = [copy.copy(data) for data in graphs]
        ends = np.cumsum(sizes**2).tolist()
        for data, start, end in zip(found, [0, *ends], ends, strict=False):
            data["distance"] = torch.from_numpy(distance[start:end].copy())  # a view would keep the distances of all
        return found

    def _alone(self, edge_index: Tensor, num_nodes: int) -> np.ndarray:
        """The distances of one graph."""
        if num_nodes**2 > _WHOLE:
            return searched_distances(edge_index, num_nodes, self.cutoff, self.directed)
        distance = all_distances(edge_index, num_nodes, self.directed)
        if self.cutoff is not None:
            distance[distance > self.cutoff] = 0
        elif num_nodes > _LONGEST and distance.max() > _LONGEST:
            raise ValueError(f"distances up to {distance.max():.0f} do not fit into int16; give a cutoff")
        return distance

    def _together(self, edges: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The distances of graphs whose nodes are numbered one after another."""
        squares = sizes**2
        needed = int(squares.sum()) * _BYTES_PER_PAIR
        check_room(needed, f"the distances of all pairs in {len(sizes):,} graphs", _INSTEAD)
        check_ends(edges.min(initial=0), edges.max(initial=-1), sizes.sum())
        graph = np.repeat(np.arange(len(sizes)), sizes)
        owner, other = graph[edges]
        if (owner != other).any():
            raise ValueError("edges connect different graphs of the batch; its ptr does not fit its edge_index")
        small = sizes <= LARGEST
        inside = (edges - np.cumsum(np.where(small, 0, sizes))[owner])[:, small[owner]]  # larger graphs are left out
        if not self.directed:
            inside = np.concatenate((inside, inside[::-1]), axis=1)
        together = distances_together(inside, sizes[small], self.cutoff).astype(_type(self.cutoff), copy=False)
        if small.all():
            return together
        found = np.empty(squares.sum(), together.dtype)
        found[np.repeat(small, squares)] = together
        first, start = np.cumsum(sizes) - sizes, np.cumsum(squares) - squares
        for large in np.flatnonzero(~small):
            alone = torch.from_numpy(edges[:, owner == large] - first[large])
            found[start[large] :][: squares[large]] = self._alone(alone, int(sizes[large])).ravel()
        return found


class AddShortestPathPairs(Transform):
    r"""Adds the pairs of nodes whose distance is at most ``cutoff``, for graphs that are too large for all pairs.

    ``pair_index`` of shape :math:`(2, P)` holds them in ascending order, without the nodes themselves, and
    ``pair_distance`` of shape :math:`(P,)` their distances: edges, two-hop neighbours and so on, as sparse attention
    takes them; for nodes that attend to themselves, too, put ``torch_geometric.utils.add_self_loops`` behind it. Memory
    grows with :math:`P`.

    Args:
        cutoff: Largest distance.
        directed: Whether paths follow the direction of edges.

    Raises:
        ValueError: If ``cutoff`` is not between 1 and 32,767.
        MemoryError: If there is no room for the pairs; nothing was changed then.

    Example:
        >>> data = AddShortestPathPairs(2, directed=True)(Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3))
        >>> data.pair_index.tolist(), data.pair_distance.tolist()
        ([[0, 0, 1], [1, 2, 2]], [1, 2, 1])
    """

    def __init__(self, cutoff: int, directed: bool = False) -> None:
        _check_cutoff(cutoff)
        self.cutoff = cutoff
        self.directed = directed

    def forward(self, data: Data) -> Data:
        """Returns ``data`` with its pairs."""
        nodes = data.num_nodes
        search = pairs_of_all if nodes <= _SMALL else near_pairs
        pairs, distance = search(edges_of(data), nodes, self.cutoff, self.directed)
        data.pair_index = torch.from_numpy(np.stack(np.divmod(pairs, max(nodes, 1))))
        data.pair_distance = torch.from_numpy(distance.astype(_type(self.cutoff)))
        return data


def let_take_apart(batch: Batch, name: str) -> None:
    """Tells a batch how to give each graph its own part of an attribute of all pairs."""
    sizes = batch.ptr.diff().cpu()
    starts = torch.cat((sizes.new_zeros(1), (sizes**2).cumsum(0)))
    batch._slice_dict = {**batch._slice_dict, name: starts}
    batch._inc_dict = {**batch._inc_dict, name: torch.zeros(len(sizes), dtype=torch.long)}


def all_distances(
    edge_index: Tensor, num_nodes: int, directed: bool, bytes_per_pair: int = _BYTES_PER_PAIR
) -> np.ndarray:
    """Distances of shape (N, N) as floating-point numbers, 0 for the node itself and for no path.

    Raises:
        ValueError: If edges name nodes that the graph does not have.
        MemoryError: If there is no room for them.
    """
    check_room(num_nodes**2 * bytes_per_pair, f"the distances of all pairs of {num_nodes:,} nodes", _INSTEAD)
    sources, targets = edge_index.tolist()
    if sources:
        check_ends(min(*sources, *targets), max(*sources, *targets), num_nodes)
    graph: rustworkx.PyDiGraph[int, None] = rustworkx.PyDiGraph()
    graph.add_nodes_from(range(num_nodes))
    graph.extend_from_edge_list(zip(sources, targets, strict=True))  # type: ignore[misc]  # adds no node
    # One thread: a pool of them would not survive the fork into workers of data loaders.
    return rustworkx.digraph_distance_matrix(graph, num_nodes + 1, as_undirected=not directed, null_value=0.0)


class Neighbours(NamedTuple):
    """Where the edges of a graph lead: from node :math:`u` to ``targets[first[u] : first[u] + degree[u]]``."""

    targets: np.ndarray
    first: np.ndarray
    degree: np.ndarray

    @classmethod
    def of(cls, edge_index: Tensor, num_nodes: int, directed: bool) -> Neighbours:
        """Those of a graph.

        Raises:
            ValueError: If edges name nodes that the graph does not have.
        """
        sources, targets = edge_index.cpu().numpy()
        if sources.size:
            check_ends(min(sources.min(), targets.min()), max(sources.max(), targets.max()), num_nodes)
        if not directed:
            sources, targets = np.concatenate((sources, targets)), np.concatenate((targets, sources))
        degree = np.bincount(sources, minlength=num_nodes)
        return cls(targets[np.argsort(sources, kind="stable")], np.cumsum(degree) - degree, degree)

    def after(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All neighbours of some nodes, and for each node how many they are."""
        fan = self.degree[nodes]
        inside = np.arange(fan.sum()) - np.repeat(np.cumsum(fan) - fan, fan)
        return self.targets[np.repeat(self.first[nodes], fan) + inside], fan


def searched_distances(edge_index: Tensor, num_nodes: int, cutoff: int | None, directed: bool) -> np.ndarray:
    """Distances of shape (N, N) in their final type: breadth-first search from some nodes after another.

    Raises:
        ValueError: If edges name nodes that the graph does not have, or distances do not fit into the type.
        MemoryError: If there is no room for them.
    """
    kind = np.dtype(_type(cutoff))
    needed = num_nodes**2 * kind.itemsize
    check_room(needed, f"the distances of all pairs of {num_nodes:,} nodes", _INSTEAD)
    neighbours = Neighbours.of(edge_index, num_nodes, directed)
    distance = np.zeros((num_nodes, num_nodes), kind)
    rows = max(1, _PAIRS_AT_A_TIME // num_nodes)
    for start in range(0, num_nodes, rows):
        further = _search(distance[start : start + rows], start, neighbours, cutoff or _LONGEST)
        if further and cutoff is None:
            raise ValueError(f"distances over {_LONGEST:,} do not fit into int16; give a cutoff")
    return distance


def _search(distance: np.ndarray, start: int, neighbours: Neighbours, cutoff: int) -> bool:
    """Writes the distances from nodes ``start`` and so on; returns whether there are longer ones."""
    flat, seen = distance.reshape(-1), np.empty(distance.size, np.int32)
    row = np.arange(len(distance)) * distance.shape[1]
    node = start + np.arange(len(distance))
    itself = row + node
    flat[itself] = 1  # it has been reached
    for step in range(1, cutoff + 2):
        node, fan = neighbours.after(node)
        row = np.repeat(row, fan)
        new = flat[row + node] == 0
        row, node = row[new], node[new]
        place, order = row + node, np.arange(len(node))
        seen[place] = order
        once = seen[place] == order  # of those that reach a place one stays
        row, node = row[once], node[once]
        if not node.size or step > cutoff:
            break
        flat[row + node] = step
    flat[itself] = 0
    return bool(node.size)


def pairs_of_all(edge_index: Tensor, num_nodes: int, cutoff: int, directed: bool) -> tuple[np.ndarray, np.ndarray]:
    """The same as :func:`near_pairs`, from the distances of all pairs: faster for a graph of few nodes."""
    distance = all_distances(edge_index, num_nodes, directed).ravel()
    pairs = np.flatnonzero((distance > 0) & (distance <= cutoff))
    return pairs, distance[pairs]


def near_pairs(edge_index: Tensor, num_nodes: int, cutoff: int, directed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pairs :math:`u N + v` in ascending order, and their distances: breadth-first search from all nodes at once."""
    neighbours = Neighbours.of(edge_index, num_nodes, directed)
    frontier = np.arange(num_nodes) * (num_nodes + 1)
    found = frontier
    layers: list[np.ndarray] = []
    for _ in range(cutoff):
        start, node = np.divmod(frontier, max(num_nodes, 1))
        check_room(
            int(neighbours.degree[node].sum() + found.size) * _BYTES_PER_NEAR_PAIR,
            f"the pairs of {num_nodes:,} nodes within distance {len(layers) + 1}",
            _INSTEAD,
        )
        after, fan = neighbours.after(node)
        reached = np.unique(np.repeat(start * num_nodes, fan) + after)
        frontier = np.setdiff1d(reached, found, assume_unique=True)
        if not frontier.size:
            break
        layers.append(frontier)
        found = np.union1d(found, frontier)
    pairs = np.concatenate([np.empty(0, np.int64), *layers])
    distance = np.repeat(np.arange(1, len(layers) + 1), [layer.size for layer in layers])
    order = np.argsort(pairs, kind="stable")
    return pairs[order], distance[order]


def _type(cutoff: int | None) -> type[np.integer]:
    """A type for distances, the same for all graphs of a data set."""
    return np.uint8 if cutoff is not None and cutoff <= 254 else np.int16


def _check_cutoff(cutoff: int | None) -> None:
    if cutoff is not None and (cutoff != int(cutoff) or not 1 <= cutoff <= _LONGEST):
        raise ValueError(f"cutoff must be between 1 and {_LONGEST:,}, a whole number, got {cutoff}")
