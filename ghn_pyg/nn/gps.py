"""GPS: a convolution beside attention."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from .attention import Attention, Bias, dense_attention
from .blocks import Blocks
from .graphormer import GraphormerLayer
from .transformer_layer import LayerOptions, make_norm


class GPSLayer(GraphormerLayer):
    r"""A layer of GPS (arXiv 2205.12454): a graph convolution beside attention over all nodes of each graph.

    .. math::
        x_M = \mathrm{Norm}(x + \mathrm{Conv}(x)), \quad x_A = \mathrm{Norm}(x + \mathrm{Attn}(x)), \quad
        y = x_M + x_A, \quad x \leftarrow \mathrm{Norm}(y + \mathrm{MLP}(y))

    It is PyTorch Geometric's ``GPSConv`` with attention that takes biases of pairs of nodes, as
    :class:`~ghn_pyg.nn.GraphormerLayer` does, and does not pad all graphs to the largest one.

    Args:
        channels: Width :math:`d`.
        conv: Any convolution that keeps the width, called as ``conv(x, edge_index, …)``; ``None`` for attention alone.
        heads: Attention heads :math:`H`.
        dropout: Dropout probability of both updates and of the MLP.
        attention: How attention is computed; see :class:`~ghn_pyg.nn.GraphormerLayer`.
        options: Options of :class:`~ghn_pyg.nn.TransformerLayer`; the paper's are batch norm, an MLP of width
            :math:`2d` with ReLU, biases of queries, keys and values, and no dropout of attention weights.

    Shapes:
        - **input:** nodes :math:`(N, d)`, edges :math:`(2, E)`, the graph ``batch`` :math:`(N,)` of each node (one
          graph by default), biases of each block (none by default), and keyword arguments for the convolution
        - **output:** nodes :math:`(N, d)`

    Example:
        >>> import torch
        >>> from torch_geometric.nn import SAGEConv
        >>> layer = GPSLayer(8, SAGEConv(8, 8), heads=2)
        >>> layer(torch.zeros(3, 8), torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0, 1])).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        channels: int,
        conv: nn.Module | None,
        heads: int = 1,
        dropout: float = 0.0,
        attention: Attention = dense_attention,
        **options: Unpack[LayerOptions],
    ) -> None:
        paper: LayerOptions = {
            "ff_channels": 2 * channels,
            "activation": "relu",
            "attention_dropout": 0.0,
            "hidden_dropout": dropout,
            "qkv_bias": True,
            "norm": "batch",
        }
        with_options: LayerOptions = {**paper, **options}
        super().__init__(channels, heads, dropout, attention, **with_options)
        self.conv = conv
        self.norm3 = make_norm(with_options["norm"], channels) if conv is not None else None

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | Blocks | None = None,
        bias: Bias | None = None,
        **arguments: Any,
    ) -> Tensor:
        """Applies the layer; other arguments, such as ``edge_attr``, are those of the convolution."""
        blocks = Blocks.of(batch, x.size(0))
        y: Tensor = self.norm1(x + self.drop(self.attend(x, blocks, bias), blocks), blocks)
        if self.conv is not None and self.norm3 is not None:
            local = self.conv(x, edge_index, **arguments)
            y = y + self.norm3(x + self.drop(local, blocks), blocks)
        y = self.norm2(y + self.drop(self.feed_forward(y), blocks), blocks)
        return y
