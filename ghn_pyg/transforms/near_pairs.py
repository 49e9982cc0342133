"""Pairs of near nodes, for graphs that are too large for the distances of all pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

from .common import Transform, check_cutoff, distance_type, edge_array, edges_of
from .frontier_bfs import Neighbors, near_pairs


class AddShortestPathPairs(Transform):
    r"""Adds the pairs of nodes whose distance is at most ``cutoff``, for graphs that are too large for all pairs.

    ``pair_index`` of shape :math:`(2, P)` holds the pairs in ascending order, without pairs of a node with itself, and
    ``pair_distance`` of shape :math:`(P,)` their distances: edges, two-hop neighbors and so on, for sparse attention.
    For nodes that attend to themselves too, apply ``torch_geometric.utils.add_self_loops``. Memory grows with
    :math:`P`.

    Args:
        cutoff: Largest distance.
        directed: Whether paths follow the direction of edges.

    Raises:
        ValueError: If ``cutoff`` is not between 1 and 32,767.
        MemoryError: If the pairs do not fit into the free memory; ``data`` is unchanged then.

    Example:
        >>> data = AddShortestPathPairs(2, directed=True)(Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3))
        >>> data.pair_index.tolist(), data.pair_distance.tolist()
        ([[0, 0, 1], [1, 2, 2]], [1, 2, 1])
    """

    def __init__(self, cutoff: int, directed: bool = False) -> None:
        check_cutoff(cutoff)
        self.cutoff = cutoff
        self.directed = directed

    def forward(self, data: Data) -> Data:
        """Returns ``data`` with its pairs."""
        nodes = data.num_nodes
        source, target = edge_array(edges_of(data), nodes)
        if not self.directed:
            source, target = np.concatenate((source, target)), np.concatenate((target, source))
        pairs, distance = near_pairs(Neighbors.of(source, target, nodes), self.cutoff, "choose a smaller cutoff")
        data.pair_index = torch.from_numpy(np.stack(np.divmod(pairs, max(nodes, 1))))
        data.pair_distance = torch.from_numpy(distance.astype(distance_type(self.cutoff)))
        return data
