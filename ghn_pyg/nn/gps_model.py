"""GPS as a model that takes PyTorch Geometric's graphs."""

from __future__ import annotations

from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINEConv
from torch_geometric.nn.inits import reset

from ..utils.check_homogeneous import check_homogeneous
from .blocks import Blocks
from .gps import GPSLayer
from .graphormer_model import feature_encoder
from .readouts import Readout
from .transformer_layer import LayerOptions


class GPS(nn.Module):
    r"""GPS, "Recipe for a General, Powerful, Scalable Graph Transformer" (arXiv 2205.12454), with GINE convolutions.

    Embeddings of nodes beside those of random-walk positions, then :class:`~ghn_pyg.nn.GPSLayer`, then a sum over the
    nodes of each graph and an MLP that halves the width twice.

    Without positions, and on graphs whose nodes have equal features, it distinguishes no more than the convolution.

    Args:
        in_channels: Width of node features ``x``, if they are numbers.
        node_types: Otherwise the number of their categories.
        edge_channels: Width of edge features ``edge_attr``, if they are numbers.
        edge_types: Otherwise the number of their categories.
        out_channels: Width of the result of each graph.
        steps: Steps of the random walks ``random_walk_pe``, of ``torch_geometric.transforms.AddRandomWalkPE``; 0 for
            none.
        walk_channels: Width of their embedding.
        channels: Width :math:`d`.
        layers: Number of layers.
        heads: Attention heads.
        dropout: Dropout probability of updates.
        options: Options of :class:`~ghn_pyg.nn.TransformerLayer`.

    Shapes:
        - **input:** a ``Data`` or ``Batch`` with ``x``, ``edge_index``, ``edge_attr`` and ``random_walk_pe``
        - **output:** :math:`(G, \text{out})`

    Example:
        >>> from torch_geometric.transforms import AddRandomWalkPE
        >>> edges, types = torch.tensor([[0, 1], [1, 0]]), torch.zeros(2).long()
        >>> data = AddRandomWalkPE(20)(Data(x=torch.zeros(3).long(), edge_index=edges, edge_attr=types))
        >>> GPS.zinc()(data).shape
        torch.Size([1, 1])
        >>> sum(weight.numel() for weight in GPS.zinc().parameters())
        423717
    """

    def __init__(
        self,
        in_channels: int | None = None,
        *,
        node_types: int | None = None,
        edge_channels: int | None = None,
        edge_types: int | None = None,
        out_channels: int = 1,
        steps: int = 20,
        walk_channels: int = 28,
        channels: int = 64,
        layers: int = 10,
        heads: int = 4,
        dropout: float = 0.0,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__()
        self.steps = steps
        width = channels - walk_channels if steps else channels
        self.nodes = feature_encoder(in_channels, node_types, "node", width)
        self.edges = feature_encoder(edge_channels, edge_types, "edge", channels)
        self.walks = nn.Sequential(nn.BatchNorm1d(steps), nn.Linear(steps, walk_channels)) if steps else None
        self.layers = nn.ModuleList(
            GPSLayer(channels, self._conv(channels), heads, dropout, **options) for _ in range(layers)
        )
        self.readout = Readout("sum")
        half, quarter = channels // 2, channels // 4
        self.head = nn.Sequential(
            nn.Linear(channels, half), nn.ReLU(), nn.Linear(half, quarter), nn.ReLU(), nn.Linear(quarter, out_channels)
        )

    @staticmethod
    def _conv(channels: int) -> GINEConv:
        return GINEConv(nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels)))

    @classmethod
    def zinc(cls, **options: Any) -> Self:
        """The published size for ZINC: 10 layers of width 64, 4 heads, 423,717 parameters."""
        return cls(**{"node_types": 28, "edge_types": 4, **options})

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for part in self.children():
            reset(part)

    def forward(self, data: Data) -> Tensor:
        """Computes the result of one graph or of each graph of a batch."""
        check_homogeneous(data)
        if self.walks is not None and "random_walk_pe" not in data:
            raise ValueError(f"data has no random_walk_pe; apply AddRandomWalkPE({self.steps}) to each graph before")
        if data.edge_attr is None:
            raise ValueError("edge_attr expected features of edges, got none")
        x, edge_attr = self.nodes(data.x), self.edges(data.edge_attr)
        if self.walks is not None:
            x = torch.cat((x, self.walks(data.random_walk_pe)), dim=1)
        blocks = Blocks.of(data.batch, x.size(0), data.num_graphs if isinstance(data, Batch) else None)
        for layer in self.layers:
            x = layer(x, data.edge_index, blocks, edge_attr=edge_attr)
        result: Tensor = self.head(self.readout(x, blocks))
        return result
