"""Edges along shortest paths."""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from .checks import edges_of
from .distances import all_distances

_BYTES_PER_PAIR = 32


class AddShortestPathEdges(BaseTransform):
    r"""Adds the attribute ``path_edges``: the edges along a shortest path of each pair of nodes, :math:`(N^2, L)`.

    Row :math:`u N + v` holds positions among the graph's edges, from :math:`u` on, and -1 behind the end of the path,
    for the node itself and where there is no path. Of several shortest paths it is the one whose edges come first.
    :class:`~ghn_pyg.nn.EdgePathEncoding` takes them (Graphormer, arXiv 2106.05234).

    Args:
        max_hops: Edges :math:`L` of a path that are kept.
        directed: Whether paths follow the direction of edges.

    Shapes:
        - **output:** int32

    Raises:
        ValueError: If ``max_hops`` is below 1.
        MemoryError: If there is no room for all pairs; nothing was changed then.

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
        """Returns ``data`` with its paths."""
        nodes = data.num_nodes
        distance = all_distances(edges_of(data), nodes, self.directed, _BYTES_PER_PAIR + 4 * self.max_hops)
        sources, targets = data.edge_index.cpu().numpy()
        edges = np.arange(sources.size, dtype=np.int32)
        if not self.directed:
            sources, targets = np.concatenate((sources, targets)), np.concatenate((targets, sources))
            edges = np.concatenate((edges, edges))
        first, after = first_steps(distance, sources, targets, edges)
        at = np.repeat(np.arange(nodes), nodes).reshape(nodes, nodes)
        end = np.arange(nodes)
        path = np.empty((nodes, nodes, self.max_hops), np.int32)
        for hop in range(self.max_hops):
            path[:, :, hop] = first[at, end]
            at = after[at, end]
        data.path_edges = torch.from_numpy(path.reshape(-1, self.max_hops))
        return data


def first_steps(
    distance: np.ndarray, sources: np.ndarray, targets: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each pair (u, v) the first edge on its path, -1 for none, and the node that it leads to."""
    nodes = len(distance)
    first = np.full((nodes, nodes), -1, np.int32)
    after = np.repeat(np.arange(nodes), nodes).reshape(nodes, nodes)
    everywhere = np.arange(nodes)
    # The last one that is written stays: that of the first edge.
    for edge in np.argsort(-edges, kind="stable"):
        source, target = sources[edge], targets[edge]
        there = distance[target] > 0
        nearer = (distance[source] == distance[target] + 1) & (there | (everywhere == target))
        first[source, nearer] = edges[edge]
        after[source, nearer] = target
    return first, after
