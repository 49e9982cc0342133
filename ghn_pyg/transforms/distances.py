"""Shortest-path distances of all pairs of nodes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import rustworkx
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from ..utils.check_homogeneous import check_homogeneous
from ..utils.compat import set_batch_slices
from ..utils.memory_guard import check_memory
from .bit_parallel_bfs import all_pairs
from .common import Transform, check_cutoff, distance_type, edge_array, edges_of
from .pairwise_data import PairwiseData

NO_PATH: Final = 0
"""Entry of a distance matrix for pairs without a path, and for the diagonal."""

_TINY: Final = 128
"""A single graph of up to this many nodes, such as a molecule, takes a third of the time with rustworkx."""

INSTEAD: Final = "keep only pairs within a small distance with AddShortestPathPairs(cutoff)"


def distance_matrix(edge_index: Tensor, num_nodes: int, cutoff: int | None, directed: bool) -> np.ndarray:
    """The distances of one graph, of shape (N, N)."""
    edges = edge_array(edge_index, num_nodes)
    dtype = np.dtype(distance_type(cutoff))
    check_memory(num_nodes**2 * dtype.itemsize, f"the distance matrix of {num_nodes:,} nodes", INSTEAD)
    if num_nodes <= _TINY:
        return _tiny_distances(edges, num_nodes, cutoff, directed).astype(dtype)
    matrix = np.zeros((num_nodes, num_nodes), dtype)
    _search(edges, np.zeros(edges.shape[1], np.int64), [matrix], cutoff, directed)
    return matrix


def _tiny_distances(edges: np.ndarray, num_nodes: int, cutoff: int | None, directed: bool) -> np.ndarray:
    graph: rustworkx.PyDiGraph[int | None, None] = rustworkx.PyDiGraph()
    graph.add_nodes_from(range(num_nodes))
    graph.extend_from_edge_list(list(zip(*edges.tolist(), strict=True)))
    # The threshold is above all sizes: threads would not survive the fork into the workers of a data loader.
    matrix = rustworkx.digraph_distance_matrix(graph, _TINY + 1, as_undirected=not directed, null_value=0.0)
    if cutoff is not None:
        matrix[matrix > cutoff] = NO_PATH
    return matrix


def _search(
    edges: np.ndarray, graph: np.ndarray, matrices: Sequence[np.ndarray], cutoff: int | None, directed: bool
) -> None:
    """Fills the matrices; edges are numbered inside their graph."""
    if not directed:
        edges, graph = np.concatenate((edges, edges[::-1]), axis=1), np.concatenate((graph, graph))
    all_pairs(edges[0], edges[1], graph, matrices, cutoff)


def shortest_paths(edge_index: Tensor, num_nodes: int, cutoff: int = 50) -> Tensor:
    r"""Shortest-path distances of a directed acyclic graph whose nodes are in topological order.

    Args:
        edge_index: Edges of shape :math:`(2, E)`, each from a node to a later one.
        num_nodes: Number of nodes :math:`N`.
        cutoff: Largest distance that is kept; longer ones become 0.

    Returns:
        Distances of shape :math:`(N, N)` in uint8 (int16 for a ``cutoff`` over 254); 0 where there is no path.

    Raises:
        ValueError: If an edge names a node that the graph does not have or does not point forward, or ``cutoff`` is
            not between 1 and 32,767.
        MemoryError: If the distances do not fit into the free memory.

    Example:
        >>> shortest_paths(torch.tensor([[0, 1, 0], [1, 2, 2]]), 3)[0].tolist()
        [0, 1, 1]
    """
    check_cutoff(cutoff)
    matrix = distance_matrix(edge_index, num_nodes, cutoff, directed=True)
    if bool((edge_index[0] >= edge_index[1]).any()):
        raise ValueError("edges must point from a node to a later one; sort the nodes topologically first")
    return torch.from_numpy(matrix)


class AddShortestPathDistance(Transform):
    r"""Adds the attribute ``distance``: shortest-path distances of all pairs of nodes, flattened to :math:`(N^2,)`.

    Flattened, graphs of different size batch by concatenation. Entry :math:`u N + v` is the number of edges on the
    shortest path from :math:`u` to :math:`v`, and 0 for the node itself and where there is no path. A ``Batch`` is
    searched at once, and so are the graphs given to :meth:`many`, several times faster than one by one, with the same
    result. Time grows with :math:`N (N + E)` times the largest distance. Little memory is needed beside the result:
    30,000 nodes fit into 2 GB.

    Args:
        cutoff: Largest distance that is kept; longer ones become 0. By default all are kept.
        directed: Whether paths follow the direction of edges.

    Shapes:
        - **output:** uint8 with a ``cutoff`` of up to 254, else int16

    Raises:
        ValueError: If ``cutoff`` is not between 1 and 32,767, or without one a distance is larger.
        MemoryError: If the distances do not fit into the free memory; ``data`` is unchanged then.

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
        if cutoff is not None:
            check_cutoff(cutoff)
        self.cutoff = cutoff
        self.directed = directed

    def forward(self, data: Data) -> Data:
        """Returns ``data`` with its distances."""
        if not isinstance(data, Batch):
            matrix = distance_matrix(edges_of(data), data.num_nodes, self.cutoff, self.directed)
            return PairwiseData.add(data, "distance", torch.from_numpy(matrix.reshape(-1)))
        ptr = data.ptr.cpu().numpy()
        sizes = np.diff(ptr)
        edges = edge_array(edges_of(data), int(ptr[-1]))
        source_graph, graph = np.repeat(np.arange(len(sizes)), sizes)[edges]
        if (source_graph != graph).any():
            raise ValueError("edges connect different graphs of the batch; its ptr does not fit its edge_index")
        ends = np.cumsum(sizes**2)
        distance = np.zeros(self._check(sizes), distance_type(self.cutoff))
        matrices = [
            distance[end - size * size : end].reshape(size, size)
            for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)
        ]
        _search(edges - ptr[graph], graph, matrices, self.cutoff, self.directed)
        set_batch_slices(data, "distance", [0, *ends.tolist()])
        return PairwiseData.add(data, "distance", torch.from_numpy(distance))

    def many(self, graphs: Iterable[Data]) -> list[Data]:
        """Returns copies of the graphs with their distances, searched at once: for a whole data set.

        Raises:
            ValueError: As for one graph.
            TypeError: If ``graphs`` is a batch.
            MemoryError: If the distances of all graphs do not fit into the free memory.
        """
        if isinstance(graphs, Batch):
            raise TypeError("many expected single graphs, got a Batch; call the transform itself with it")
        graphs = [copy.copy(data) for data in graphs]
        for data in graphs:
            check_homogeneous(data)
        sizes = np.array([data.num_nodes for data in graphs], dtype=np.int64)
        self._check(sizes)
        edges = [edges_of(data) for data in graphs]
        graph = np.repeat(np.arange(len(graphs)), [part.size(1) for part in edges])
        joined = torch.cat([torch.empty(2, 0, dtype=torch.long), *edges], dim=1).cpu().numpy()
        wrong = ((joined < 0) | (joined >= sizes[graph])).any(axis=0)
        if wrong.any():
            first = graph[wrong.argmax()]
            edge_array(graphs[first].edge_index, sizes[first])  # raises the error of this graph
        matrices = [np.zeros((size, size), distance_type(self.cutoff)) for size in sizes.tolist()]
        _search(joined, graph, matrices, self.cutoff, self.directed)
        for data, matrix in zip(graphs, matrices, strict=True):
            PairwiseData.add(data, "distance", torch.from_numpy(matrix.reshape(-1)))
        return graphs

    def _check(self, sizes: np.ndarray) -> int:
        """The number of pairs of nodes of all graphs, if there is memory for them."""
        pairs = int((sizes**2).sum())
        size = np.dtype(distance_type(self.cutoff)).itemsize
        check_memory(pairs * size, f"the distances of {len(sizes):,} graphs", INSTEAD)
        return pairs
