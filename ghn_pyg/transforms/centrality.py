"""Degrees of nodes."""

from __future__ import annotations

from torch_geometric.data import Data
from torch_geometric.utils import degree

from .common import Transform, edge_array, edges_of


class AddCentrality(Transform):
    """Adds each node's number of incoming and outgoing edges, ``in_degree`` and ``out_degree`` of shape :math:`(N,)`.

    :meth:`ghn_pyg.nn.CentralityEncoding.of_degrees` embeds them (Graphormer, arXiv 2106.05234).

    Example:
        >>> import torch
        >>> data = AddCentrality()(Data(edge_index=torch.tensor([[0, 0], [1, 2]]), num_nodes=3))
        >>> data.in_degree.tolist(), data.out_degree.tolist()
        ([0, 1, 1], [2, 0, 0])
    """

    def forward(self, data: Data) -> Data:
        """Returns ``data`` with degrees."""
        sources, targets = edges_of(data)
        edge_array(data.edge_index, data.num_nodes)  # raises if an edge names a node that does not exist
        data.in_degree = degree(targets, data.num_nodes, dtype=targets.dtype)
        data.out_degree = degree(sources, data.num_nodes, dtype=sources.dtype)
        return data
