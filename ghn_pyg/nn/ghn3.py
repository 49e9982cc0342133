"""The encoder of GHN-3."""

from __future__ import annotations

from torch import Tensor, nn

from .attention import Attention, dense_attention
from .bias import DistanceBias
from .encodings import CentralityEncoding, DepthEncoding
from .graphormer import GraphTransformer
from .ragged import Blocks


class GHN3Encoder(nn.Module):
    r"""The encoder of GHN-3: centrality and depth encodings, then Graphormer layers that share one distance bias.

    From "Can We Scale Transformers to Predict Parameters of Diverse ImageNet Models?" (arXiv 2303.04143). Time grows
    with :math:`H N^2`. Memory does up to 4,096 nodes with 8 heads (0.5 GB), and takes no more than five bytes for each
    pair of nodes of larger graphs: 0.5 GB for 10,000 nodes. See :func:`~ghn_pyg.nn.dense_attention`.

    Args:
        channels: Width :math:`d`.
        layers: Number of layers.
        heads: Attention heads :math:`H`.
        attention: How attention is computed; see :class:`~ghn_pyg.nn.GraphormerLayer`.
        checkpointing: Whether the backward pass computes activations inside layers again.

    Shapes:
        - **input:** nodes :math:`(N, d)`, edges :math:`(2, E)`, distances :math:`(\sum_g N_g^2,)` and for each node
          its graph ``batch`` :math:`(N,)`, or the blocks of the batch (one graph by default)
        - **output:** nodes :math:`(N, d)`

    Example:
        >>> import torch
        >>> encoder = GHN3Encoder(channels=8, layers=2, heads=2)
        >>> edges, distance = torch.tensor([[0], [1]]), torch.tensor([0, 1, 0, 0])
        >>> encoder(torch.zeros(2, 8), edges, distance).shape
        torch.Size([2, 8])
    """

    def __init__(
        self, channels: int, layers: int, heads: int, attention: Attention = dense_attention,
        checkpointing: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.centrality = CentralityEncoding(channels)
        self.depth = DepthEncoding(channels)
        self.spatial = DistanceBias(channels, heads)
        self.layers = GraphTransformer(channels, layers, heads, attention=attention, checkpointing=checkpointing)

    def forward(self, x: Tensor, edge_index: Tensor, distance: Tensor, batch: Tensor | Blocks | None = None) -> Tensor:
        """Encodes the nodes of one or more graphs."""
        blocks = Blocks.of(batch, x.size(0))
        x = x + self.centrality(edge_index, x.size(0)) + self.depth(distance, blocks)
        return self.layers(x, blocks, self.spatial(distance, blocks))
