"""Random regular graphs, through which any node reaches any other one in a few steps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import coalesce

from .common import Transform, edges_of


class AddExpanderEdges(Transform):
    r"""Adds ``expander_index``: the edges of a random regular graph over the nodes, :math:`(2, P)`.

    It is the union of random cycles through all nodes, in both directions. Such graphs are expanders with high
    probability: any node is :math:`O(\log N)` steps from any other one. Sparse attention along them and along the
    graph's own edges costs :math:`O(N + E)` (Exphormer, arXiv 2303.06147). Memory grows with :math:`N`; no distances
    are needed.

    Args:
        degree: Neighbors of each node, an even number; fewer in graphs that do not have as many nodes.
        seed: A seed for each graph of as many nodes; by default the global generator draws anew at each call.

    Raises:
        ValueError: If ``degree`` is odd or below 2.

    Example:
        >>> data = AddExpanderEdges(degree=2, seed=0)(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=5))
        >>> data.expander_index[0].tolist()
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    """

    def __init__(self, degree: int = 4, seed: int | None = None) -> None:
        if degree < 2 or degree % 2:
            raise ValueError(f"degree must be an even number from 2 on, got {degree}")
        self.degree = degree
        self.seed = seed

    def forward(self, data: Data) -> Data:
        """Returns ``data`` with its expander."""
        edges_of(data)
        if isinstance(data, Batch):
            raise TypeError("expected single graphs, got a Batch; apply the transform to each graph before batching")
        data.expander_index = self._edges(data.num_nodes).to(data.edge_index.device)
        return data

    def _edges(self, nodes: int) -> Tensor:
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        orders = [torch.randperm(nodes, generator=generator) for _ in range(self.degree // 2)]
        edges = torch.cat([torch.stack((order, order.roll(-1))) for order in orders], dim=1)
        edges = torch.cat((edges, edges.flip(0)), dim=1)
        distinct: Tensor = coalesce(edges[:, edges[0] != edges[1]], num_nodes=nodes)
        return distinct
