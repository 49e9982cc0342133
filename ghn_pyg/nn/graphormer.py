"""Graphormer: transformer layers over the nodes of each graph, whose attention is biased by the graph's structure."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn.inits import reset

from .attention import (
    Attention,
    Bias,
    TableBias,
    add_biases,
    check_bias,
    dense_attention,
    is_flexible,
    is_looked_up,
    table_attention,
)
from .ragged import Blocks


class GraphormerLayer(nn.Module):
    r"""A pre-norm transformer layer over the nodes of each graph.

    .. math::
        x \leftarrow x + \mathrm{Attn}(\mathrm{LN}(x)), \qquad x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)), \qquad
        \mathrm{Attn} = \mathrm{softmax}\left(Q K^\top / \sqrt{d/H} + B\right) V

    with the bias :math:`B` of each head added to the scores (Graphormer, arXiv 2106.05234). Graphs of a batch do not
    see one another.

    Args:
        channels: Width :math:`d`.
        heads: Number of heads :math:`H`; it divides :math:`d`.
        dropout: Share of attention weights and of both updates that is dropped while training.
        attention: How attention is computed; :func:`~ghn_pyg.nn.attention.table_attention` holds no bias for every
            pair and is for GPUs.

    Shapes:
        - **input:** nodes :math:`(N, d)`, for each node its graph ``batch`` :math:`(N,)` (ascending; one graph by
          default) and for each block of the batch the biases :math:`(G, H, n, n)` (none by default), from
          :class:`~ghn_pyg.nn.SpatialEncoding` and its like or
          :meth:`Blocks.biases <ghn_pyg.nn.ragged.Blocks.biases>`
        - **output:** nodes :math:`(N, d)`

    Raises:
        ValueError: If ``heads`` does not divide ``channels``, the dropout is no share, or the batch does not fit the
            nodes.

    Example:
        >>> from ghn_pyg.nn import SpatialEncoding
        >>> layer = GraphormerLayer(channels=8, heads=2)
        >>> x, batch, distance = torch.zeros(3, 8), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1, 0, 0])
        >>> blocks = Blocks.of(batch, num_nodes=3)
        >>> layer(x, blocks, SpatialEncoding(heads=2)(distance, blocks)).shape
        torch.Size([3, 8])
    """

    def __init__(self, channels: int, heads: int, dropout: float = 0.0, attention: Attention = dense_attention) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"channels must be a multiple of heads, got {channels} and {heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be from 0 to less than 1, got {dropout}")
        self.heads = heads
        self.dropout = dropout
        self.attention = attention
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.ff = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for part in self.children():
            reset(part)

    def attend(self, x: Tensor, blocks: Blocks, bias: Bias | None) -> Tensor:
        """Self-attention inside each graph."""
        query, key, value = self.qkv(x).view(x.size(0), 3, self.heads, -1).unbind(1)
        dropout = self.dropout if self.training else 0.0
        attended = self.attention(query, key, value, blocks, bias, dropout)
        return self.out(blocks.join(attended).flatten(1))

    def forward(self, x: Tensor, batch: Tensor | Blocks | None = None, bias: Bias | None = None) -> Tensor:
        """Applies the layer."""
        blocks = Blocks.of(batch, x.size(0))
        x = x + F.dropout(self.attend(self.norm1(x), blocks, bias), self.dropout, self.training)
        return x + F.dropout(self.ff(self.norm2(x)), self.dropout, self.training)


class GraphTransformer(nn.ModuleList):
    r"""Graphormer layers that share one bias (arXiv 2106.05234).

    Args:
        channels: Width :math:`d`.
        layers: Number of layers.
        heads: Attention heads :math:`H`.
        dropout: Share that is dropped while training; see :class:`GraphormerLayer`.
        attention: How attention is computed; see :class:`GraphormerLayer`.
        checkpointing: Whether activations inside layers are computed again in the backward pass instead of held:
            memory for time.

    Shapes:
        - **input:** as of :class:`GraphormerLayer`; for ``torch.compile(…, fullgraph=True)`` pass the blocks, whose
          sizes the compiler must know, and not the vector ``batch``
        - **output:** nodes :math:`(N, d)`

    Example:
        >>> GraphTransformer(channels=8, layers=2, heads=2)(torch.zeros(3, 8)).shape
        torch.Size([3, 8])
    """

    def __init__(
        self, channels: int, layers: int, heads: int, dropout: float = 0.0, attention: Attention = dense_attention,
        checkpointing: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(GraphormerLayer(channels, heads, dropout, attention) for _ in range(layers))
        self.heads = heads
        self.dropout = dropout
        self.attention = attention
        self.checkpointing = checkpointing

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for layer in self:
            reset(layer)

    def forward(self, x: Tensor, batch: Tensor | Blocks | None = None, bias: Bias | None = None) -> Tensor:
        """Applies all layers."""
        blocks = Blocks.of(batch, x.size(0))
        if bias is not None:
            check_bias(bias, blocks, self.heads)
            if isinstance(bias, TableBias) and not self._looks_up(x, bias):
                bias = bias.held()  # once for all layers
        for layer in self:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, blocks, bias, use_reentrant=False)
            else:
                x = layer(x, blocks, bias)
        return x

    def _looks_up(self, x: Tensor, bias: Bias) -> bool:
        """Whether layers read biases from their table."""
        dropout = self.dropout if self.training else 0.0
        flexible = self.attention is table_attention and is_flexible(bias, dropout, x)
        return flexible or is_looked_up(bias, dropout, x)


class GraphToken(nn.Module):
    r"""Puts one more node in front of every graph, connected to all others: its embedding stands for the graph.

    Its embedding is trained, and so is one bias per head for all pairs that it is a part of (arXiv 2106.05234). Biases
    of a table become tensors.

    Args:
        channels: Width :math:`d`.
        heads: Attention heads :math:`H`.

    Shapes:
        - **input:** nodes :math:`(N, d)`, their ``batch`` and for each block the biases :math:`(G, H, n, n)`
        - **output:** nodes :math:`(N + G, d)`, the blocks of the batch with tokens, and its biases

    Example:
        >>> token, layer = GraphToken(channels=8, heads=2), GraphormerLayer(channels=8, heads=2)
        >>> x, blocks, bias = token(torch.zeros(5, 8), torch.tensor([0, 0, 0, 1, 1]))
        >>> tokens, nodes = token.split(layer(x, blocks, bias), blocks)
        >>> tokens.shape, nodes.shape
        (torch.Size([2, 8]), torch.Size([5, 8]))
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(1, channels))
        self.bias = nn.Parameter(torch.empty(heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws small numbers."""
        nn.init.normal_(self.embedding, std=0.02)
        nn.init.normal_(self.bias, std=0.02)

    def forward(
        self, x: Tensor, batch: Tensor | Blocks | None = None, bias: Bias | None = None
    ) -> tuple[Tensor, Blocks, list[Tensor]]:
        """Adds the tokens."""
        before = Blocks.of(batch, x.size(0))
        blocks = before.with_tokens()
        tokens, nodes = places(blocks, x.device)
        added = self.embedding.to(x.dtype).expand(tokens.numel(), -1)
        joined = x.new_empty(x.size(0) + tokens.numel(), x.size(1)).index_copy(0, nodes, x).index_copy(0, tokens, added)
        return joined, blocks, self.biases(blocks, bias)

    def biases(self, blocks: Blocks, bias: Bias | None) -> list[Tensor]:
        """The biases of a batch with tokens."""
        inner = [] if bias is None else add_biases(bias)
        found = []
        for position, block in enumerate(blocks):
            edge = self.bias.new_zeros(block.size, block.size)
            edge[0] = edge[:, 0] = 1
            whole = self.bias[:, None, None] * edge
            if position < len(inner):  # others are of graphs without nodes, or without biases
                whole = whole + F.pad(inner[position], (1, 0, 1, 0))
            whole = whole.expand(len(block.graphs), -1, -1, -1).transpose(0, 1)
            found.append(block.hide(whole, -torch.inf).transpose(0, 1))
        return found

    def split(self, x: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """The embeddings of graphs and of nodes.

        Args:
            x: Nodes and tokens, :math:`(N + G, d)`.
            blocks: The blocks of the batch with tokens, as the call returned them.
        """
        blocks = Blocks.of(blocks, x.size(0))
        tokens, nodes = places(blocks, x.device)
        return x.index_select(0, tokens), x.index_select(0, nodes)


def places(blocks: Blocks, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of tokens and of nodes in a batch with tokens."""
    sizes = torch.tensor(blocks.sizes)
    is_token = torch.zeros(int(sizes.sum()), dtype=torch.bool)
    is_token[sizes.cumsum(0) - sizes] = True
    return is_token.nonzero().flatten().to(device), (~is_token).nonzero().flatten().to(device)
