"""Edges along shortest paths."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from .base import Transform
from .checks import edges_of
from .distances import all_distances, let_take_apart

_BYTES_PER_PAIR: Final = 32
_AT_A_TIME: Final = 1 << 15
"""Pairs of an edge and an end that are looked at together, so that they stay in the cache."""


class AddShortestPathEdges(Transform):
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
        """Returns ``data`` with its paths; those of a batch are the graphs' own."""
        if isinstance(data, Batch):
            data.path_edges = torch.cat([self.paths(graph) for graph in data.to_data_list()])
            let_take_apart(data, "path_edges")
        else:
            data.path_edges = self.paths(data)
        return data

    def paths(self, data: Data) -> Tensor:
        """The edges along the paths of one graph."""
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
        return torch.from_numpy(path.reshape(-1, self.max_hops))


def first_steps(
    distance: np.ndarray, sources: np.ndarray, targets: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each pair (u, v) the first edge on its path, -1 for none, and the node that it leads to."""
    nodes = len(distance)
    first = np.full((nodes, nodes), -1, np.int32)
    after = np.repeat(np.arange(nodes), nodes).reshape(nodes, nodes)
    order = np.argsort(-edges, kind="stable")  # the last one that is written stays: that of the first edge
    at_a_time = max(1, _AT_A_TIME // max(nodes, 1))
    for some in np.split(order, range(at_a_time, order.size, at_a_time)):
        source, target = sources[some], targets[some]
        left = distance[target]
        there = left > 0
        there[np.arange(some.size), target] = True
        edge, end = ((distance[source] == left + 1) & there).nonzero()
        first[source[edge], end] = edges[some[edge]]
        after[source[edge], end] = target[edge]
    return first, after
