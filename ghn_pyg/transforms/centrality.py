"""Degrees of nodes."""

from __future__ import annotations

from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform
from torch_geometric.utils import degree

from .checks import check_ends, edges_of


class AddCentrality(BaseTransform):
    """Adds each node's number of incoming and outgoing edges, ``in_degree`` and ``out_degree`` of shape :math:`(N,)`.

    They are what :meth:`ghn_pyg.nn.CentralityEncoding.of_degrees` embeds (Graphormer, arXiv 2106.05234).

    Example:
        >>> import torch
        >>> data = AddCentrality()(Data(edge_index=torch.tensor([[0, 0], [1, 2]]), num_nodes=3))
        >>> data.in_degree.tolist(), data.out_degree.tolist()
        ([0, 1, 1], [2, 0, 0])
    """

    def forward(self, data: Data) -> Data:
        """Returns ``data`` with degrees."""
        edges = edges_of(data)
        if edges.numel():
            check_ends(int(edges.min()), int(edges.max()), data.num_nodes)
        sources, targets = edges
        data.in_degree = degree(targets, data.num_nodes, dtype=targets.dtype)
        data.out_degree = degree(sources, data.num_nodes, dtype=sources.dtype)
        return data
