"""Graphormer: transformer layers over the nodes of each graph, with attention biased by its structure."""

from __future__ import annotations

from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn.inits import reset

from .attention import (
    Attention,
    Bias,
    TableBias,
    attention_weights,
    check_bias,
    dense_attention,
    prepare_bias,
    table_attention,
    uses_flex_attention,
)
from .blocks import Blocks
from .transformer_layer import LayerOptions, TransformerLayer


class GraphormerLayer(TransformerLayer):
    r"""A transformer layer over the nodes of each graph, pre-norm by default.

    .. math::
        x \leftarrow x + \mathrm{Attn}(\mathrm{LN}(x)), \qquad x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)), \qquad
        \mathrm{Attn} = \mathrm{softmax}\left(Q K^\top / \sqrt{d/H} + B\right) V

    with the bias :math:`B` of each head added to the scores (Graphormer, arXiv 2106.05234). Nodes attend only to
    nodes of their own graph.

    Attention averages the values of nodes. Where all nodes have equal features it returns that very value, whatever
    the bias: bias alone cannot tell such graphs apart. Add what differs: a :class:`GraphToken`, whose weights depend
    on the number of nodes, degrees (:class:`~ghn_pyg.nn.CentralityEncoding`), or random walks
    (``torch_geometric.transforms.AddRandomWalkPE``).

    Args:
        channels: Width :math:`d`.
        heads: Number of attention heads :math:`H`; it divides :math:`d`.
        dropout: Dropout probability of both updates, and of attention weights by default.
        attention: How attention is computed: :func:`~ghn_pyg.nn.dense_attention`, or for GPUs
            :func:`~ghn_pyg.nn.table_attention`, which holds no bias for every pair.
        options: Options of :class:`~ghn_pyg.nn.TransformerLayer`.

    Shapes:
        - **input:** nodes :math:`(N, d)`, the graph ``batch`` :math:`(N,)` of each node (ascending; one graph by
          default) and the biases of each block :math:`(G, H, n, n)` (none by default), from
          :class:`~ghn_pyg.nn.SpatialEncoding` or :meth:`Blocks.biases <ghn_pyg.nn.Blocks.biases>`
        - **output:** nodes :math:`(N, d)`; with ``return_attention_weights`` also the attention weights of each block,
          :math:`(G, H, n, n)`, before dropout

    Raises:
        ValueError: If ``heads`` does not divide ``channels``, a dropout is not a probability below 1, or the batch
            does not fit the nodes.

    Example:
        >>> from ghn_pyg.nn import SpatialEncoding
        >>> layer = GraphormerLayer(channels=8, heads=2)
        >>> x, batch, distance = torch.zeros(3, 8), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1, 0, 0])
        >>> blocks = Blocks.of(batch, num_nodes=3)
        >>> layer(x, blocks, SpatialEncoding(heads=2)(distance, blocks)).shape
        torch.Size([3, 8])
        >>> [weights.shape for weights in layer(x, batch, return_attention_weights=True)[1]]
        [torch.Size([2, 2, 2, 2])]
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        dropout: float = 0.0,
        attention: Attention = dense_attention,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(channels, heads, dropout, **options)
        self.attention = attention

    def attend(self, x: Tensor, blocks: Blocks, bias: Bias | None) -> Tensor:
        """Self-attention inside each graph."""
        query, key, value = self.heads_of(x)
        attended = self.attention(query, key, value, blocks, bias, self.dropout_of_attention())
        return self.out(blocks.join(attended).flatten(1))

    def forward(
        self,
        x: Tensor,
        batch: Tensor | Blocks | None = None,
        bias: Bias | None = None,
        return_attention_weights: bool = False,
    ) -> Any:
        """Applies the layer."""
        blocks, weights = Blocks.of(batch, x.size(0)), []
        if return_attention_weights:
            query, key, _ = self.heads_of(self.norm1(x, blocks) if self.norm_first else x)
            weights = attention_weights(query, key, blocks, bias)
        x = self.update(x, blocks, lambda x: self.attend(x, blocks, bias))
        return (x, weights) if return_attention_weights else x


class GraphTransformer(nn.ModuleList):
    r"""Graphormer layers that share one bias (arXiv 2106.05234).

    Args:
        channels: Width :math:`d`.
        layers: Number of layers.
        heads: Attention heads :math:`H`.
        dropout: Dropout probability; see :class:`GraphormerLayer`.
        attention: How attention is computed; see :class:`GraphormerLayer`.
        checkpointing: Whether to recompute activations inside layers in the backward pass, which saves memory.
        options: Options of :class:`~ghn_pyg.nn.TransformerLayer`.

    Shapes:
        - **input:** as of :class:`GraphormerLayer`; for ``torch.compile(…, fullgraph=True)`` pass the blocks, not the
          vector ``batch``: the compiler must know the sizes, or take the layout ``"padded"`` of
          :class:`~ghn_pyg.nn.Blocks`
        - **output:** nodes :math:`(N, d)`; with ``return_attention_weights`` also a list with those of each layer

    Example:
        >>> GraphTransformer(channels=8, layers=2, heads=2)(torch.zeros(3, 8)).shape
        torch.Size([3, 8])
    """

    def __init__(
        self, channels: int, layers: int, heads: int, dropout: float = 0.0, attention: Attention = dense_attention,
        checkpointing: bool = False, **options: Unpack[LayerOptions],
    ) -> None:  # fmt: skip
        super().__init__(GraphormerLayer(channels, heads, dropout, attention, **options) for _ in range(layers))
        self.heads = heads
        given = options.get("attention_dropout")
        self.attention_dropout = dropout if given is None else given
        self.attention = attention
        self.checkpointing = checkpointing

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for layer in self:
            reset(layer)

    def forward(
        self,
        x: Tensor,
        batch: Tensor | Blocks | None = None,
        bias: Bias | None = None,
        return_attention_weights: bool = False,
    ) -> Any:
        """Applies all layers."""
        blocks, weights = Blocks.of(batch, x.size(0)), []
        if bias is not None:
            check_bias(bias, blocks, self.heads)
        dropout = self.attention_dropout if self.training else 0.0
        if not (self.attention is table_attention and uses_flex_attention(bias, dropout, x)):
            bias = prepare_bias(bias, blocks, dropout, x.unflatten(1, (self.heads, -1)))  # once for all layers
        for layer in self:
            if return_attention_weights:
                x, own = layer(x, blocks, bias, return_attention_weights=True)
                weights.append(own)
            elif self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, blocks, bias, use_reentrant=False)
            else:
                x = layer(x, blocks, bias)
        return (x, weights) if return_attention_weights else x


class GraphToken(nn.Module):
    r"""Puts a token, one more node, in front of every graph: its final embedding represents the graph.

    The token's embedding is trained, and so is one bias per head for all pairs with the token (arXiv 2106.05234).

    Args:
        channels: Width :math:`d`.
        heads: Attention heads :math:`H`.

    Shapes:
        - **input:** nodes :math:`(N, d)`, their ``batch`` and the biases of each block :math:`(G, H, n, n)`
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
        """Draws embedding and biases anew, with standard deviation 0.02."""
        nn.init.normal_(self.embedding, std=0.02)
        nn.init.normal_(self.bias, std=0.02)

    def forward(
        self, x: Tensor, batch: Tensor | Blocks | None = None, bias: Bias | None = None, batch_size: int | None = None
    ) -> tuple[Tensor, Blocks, TableBias]:
        """Adds the tokens."""
        before = Blocks.of(batch, x.size(0), batch_size)
        blocks = before.with_tokens()
        tokens, nodes = _token_and_node_rows(blocks, x.device)
        added = self.embedding.to(x.dtype).expand(tokens.numel(), -1)
        joined = x.new_empty(x.size(0) + tokens.numel(), x.size(1)).index_copy(0, nodes, x).index_copy(0, tokens, added)
        return joined, blocks, self._biases(before, blocks, bias)

    def _biases(self, before: Blocks, blocks: Blocks, bias: Bias | None) -> TableBias:
        """The biases of a batch with tokens, whose pairs have one more column of the table."""
        heads = self.bias.numel()
        if bias is not None:
            check_bias(bias, before, heads)
        inner = TableBias.of(bias, before, self.bias[None, :, None])
        number = inner.table.size(1) - 1
        columns = [F.pad(part, (1, 0, 1, 0), value=number) for part in inner.columns]
        extra = None if inner.extra is None else [F.pad(part, (1, 0, 1, 0)) for part in inner.extra]
        for block in blocks.blocks[len(columns) :]:  # of graphs without nodes
            columns.append(columns[0].new_full((block.count, 1, 1), number))
            if extra is not None:
                extra.append(extra[0].new_zeros(block.count, heads, 1, 1))
        table = torch.cat((inner.table[:, :-1], self.bias[:, None].to(inner.table.dtype)), dim=1)
        return TableBias(table, columns, blocks, extra)

    def split(self, x: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """The embeddings of graphs and of nodes.

        Args:
            x: Nodes and tokens, :math:`(N + G, d)`.
            blocks: The blocks of the batch with tokens, as returned by the call.
        """
        blocks = Blocks.of(blocks, x.size(0))
        tokens, nodes = _token_and_node_rows(blocks, x.device)
        return x.index_select(0, tokens), x.index_select(0, nodes)


def _token_and_node_rows(blocks: Blocks, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows of tokens and of nodes in a batch with tokens."""
    counts = blocks.counts.to(device)
    tokens = counts.cumsum(0) - counts
    graph = torch.arange(counts.size(0), device=device)
    nodes = blocks.num_nodes - blocks.batch_size
    before = graph.repeat_interleave(counts - 1, output_size=nodes)
    return tokens, torch.arange(nodes, device=device) + before + 1
