"""The encoder of GHN-3."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from .attention import Attention, dense_attention
from .attention_bias import DistanceBias
from .blocks import Blocks
from .graphormer import GraphTransformer
from .node_encodings import CentralityEncoding, DepthEncoding


class GHN3Encoder(nn.Module):
    r"""The encoder of GHN-3: centrality and depth encodings, then Graphormer layers that share one distance bias.

    From "Can We Scale Transformers to Predict Parameters of Diverse ImageNet Models?" (arXiv 2303.04143). Time grows
    with :math:`H N^2`. So does memory up to 4,096 nodes with 8 heads (0.5 GB); larger graphs take five bytes per
    pair of nodes: 0.5 GB for 10,000 nodes. See :func:`~ghn_pyg.nn.dense_attention`.

    Args:
        channels: Width :math:`d`.
        layers: Number of layers.
        heads: Attention heads :math:`H`.
        attention: How attention is computed; see :class:`~ghn_pyg.nn.GraphormerLayer`.
        checkpointing: Whether to recompute activations inside layers in the backward pass, which saves memory.

    Shapes:
        - **input:** nodes :math:`(N, d)`, edges :math:`(2, E)`, distances :math:`(\sum_g N_g^2,)` and the graph
          ``batch`` :math:`(N,)` of each node, or the blocks of the batch (one graph by default)
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

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for part in self.children():
            reset(part)

    def forward(self, x: Tensor, edge_index: Tensor, distance: Tensor, batch: Tensor | Blocks | None = None) -> Tensor:
        """Encodes the nodes of one or more graphs."""
        blocks = Blocks.of(batch, x.size(0))
        x = x + self.centrality(edge_index, x.size(0)) + self.depth(distance, blocks)
        return self.layers(x, blocks, self.spatial(distance, blocks))
