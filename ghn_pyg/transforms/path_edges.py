"""Edges along shortest paths."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from ..utils.memory_guard import check_memory
from .common import Transform, edge_array, edges_of
from .distances import INSTEAD, distance_matrix
from .pairwise_data import PairwiseData

_BYTES_PER_PAIR: Final = 24
_PAIRS_AT_A_TIME: Final = 1 << 15
"""Pairs of an edge and an end node that are compared together: they stay in the cache."""


class AddShortestPathEdges(Transform):
    r"""Adds the attribute ``path_edges``: the edges along a shortest path of each pair of nodes, :math:`(N^2, L)`.

    Row :math:`u N + v` holds positions among the graph's edges, in order from :math:`u`, and -1 after the end of the
    path, for the node itself and where there is no path. Of several shortest paths it is the one with the lowest
    edge positions; edges against the walking direction come last, so that each direction of a pair of nodes has the
    features of its own edge where both exist. Input of :class:`~ghn_pyg.nn.EdgePathEncoding` (Graphormer, arXiv
    2106.05234).

    Args:
        max_hops: Edges :math:`L` of a path that are kept.
        directed: Whether paths follow the direction of edges.

    Shapes:
        - **output:** int32

    Raises:
        ValueError: If ``max_hops`` is below 1.
        MemoryError: If the paths do not fit into the free memory; ``data`` is unchanged then.

    Example:
        >>> data = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
        >>> AddShortestPathEdges(2, directed=True)(data).path_edges.view(3, 3, 2)[0].tolist()
        [[-1, -1], [0, -1], [0, 1]]
    """

    def __init__(self, max_hops: int = 5, directed: bool = False) -> None:
        if max_hops < 1:
            raise ValueError(f"max_hops must be at least 1, got {max_hops}")
        self.max_hops = max_hops
        self.directed = directed

    def forward(self, data: Data) -> Data:
        """Returns ``data`` with its paths; in a batch, edge positions are those inside each graph."""
        return PairwiseData.add_to_each(data, "path_edges", self._paths)

    def _paths(self, data: Data) -> Tensor:
        edge_index, nodes = edges_of(data), data.num_nodes
        sources, targets = edge_array(edge_index, nodes)
        what = f"the list of path edges of {nodes:,} nodes"
        check_memory(nodes**2 * (_BYTES_PER_PAIR + 4 * self.max_hops), what, INSTEAD)
        distance = distance_matrix(edge_index, nodes, None, self.directed)
        edges = rank = np.arange(sources.size, dtype=np.int32)
        if not self.directed:
            sources, targets = np.concatenate((sources, targets)), np.concatenate((targets, sources))
            edges, rank = np.concatenate((edges, edges)), np.concatenate((rank, rank + edges.size))
        first_edge, next_node = _first_hops(distance, sources, targets, edges, rank)
        node = np.repeat(np.arange(nodes, dtype=np.int32), nodes).reshape(nodes, nodes)
        end = np.arange(nodes)
        path = np.empty((nodes, nodes, self.max_hops), np.int32)
        for hop in range(self.max_hops):
            path[:, :, hop] = first_edge[node, end]
            node = next_node[node, end]
        return torch.from_numpy(path.reshape(-1, self.max_hops))


def _first_hops(
    distance: np.ndarray, sources: np.ndarray, targets: np.ndarray, edges: np.ndarray, rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each pair (u, v) the edge of lowest rank that begins a path, -1 for none, and the node that it leads to."""
    nodes = len(distance)
    first_edge = np.full((nodes, nodes), -1, np.int32)
    next_node = np.repeat(np.arange(nodes, dtype=np.int32), nodes).reshape(nodes, nodes)
    order = np.argsort(-rank)  # later writes win: those of the lowest rank
    size = max(1, _PAIRS_AT_A_TIME // max(nodes, 1))
    for part in np.split(order, range(size, order.size, size)):
        source, target = sources[part], targets[part]
        remaining = distance[target]
        connected = remaining > 0
        connected[np.arange(part.size), target] = True
        edge, end = ((distance[source] == remaining + 1) & connected).nonzero()
        first_edge[source[edge], end] = edges[part[edge]]
        next_node[source[edge], end] = target[edge]
    return first_edge, next_node
