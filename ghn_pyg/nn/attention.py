"""Attention inside each graph of a batch, with a bias for every pair of nodes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from .ragged import Blocks

Bias = Sequence[Tensor]
"""For each block of a batch the biases of its pairs, of shape (G, heads, n, n)."""


class TableBias(Sequence[Tensor]):
    r"""Biases that are looked up in a table: as many different ones as the table has columns.

    As a sequence it holds for each block the biases :math:`(G, H, n, n)`, which are looked up once.

    Args:
        table: The biases of each head, :math:`(H, T)`.
        positions: For each block the column of each pair (query, key), :math:`(G, n, n)`.
        blocks: The blocks, whose padding is hidden.
    """

    def __init__(self, table: Tensor, positions: Sequence[Tensor], blocks: Blocks) -> None:
        hidden = table.new_full((len(table), 1), -torch.inf)
        self.table = torch.cat((table, hidden), dim=1)
        self.positions = [block.hide(part, table.size(1)) for block, part in zip(blocks, positions, strict=True)]
        self._dense: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, item: int) -> Tensor: ...
    @overload
    def __getitem__(self, item: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, item: int | slice) -> Tensor | Sequence[Tensor]:
        if not self._dense:
            self._dense = [lookup_bias(self.table, position).transpose(0, 1) for position in self.positions]
        return self._dense[item]


def lookup_bias(table: Tensor, position: Tensor) -> Tensor:
    """``table[:, position]``, with a backward pass that adds up in one sweep."""
    heads = table.size(0)
    return table.gather(1, position.reshape(1, -1).expand(heads, -1)).view(heads, *position.shape)


def add_biases(*biases: Bias) -> Bias:
    """The sum of biases of the same blocks.

    Example:
        >>> [block.tolist() for block in add_biases([torch.ones(1, 1, 1, 1)], [torch.ones(1, 1, 1, 1)])]
        [[[[[2.0]]]]]
    """
    return [functools.reduce(torch.add, parts) for parts in zip(*biases, strict=True)]


Attention = Callable[[Tensor, Tensor, Tensor, Blocks, Bias | None, float], list[Tensor]]


def dense_attention(
    query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, bias: Bias | None, dropout: float = 0.0
) -> list[Tensor]:
    r"""Scaled-dot-product attention :math:`\mathrm{softmax}(Q K^\top / \sqrt{d_H} + B)\, V` on PyTorch's fused kernels.

    Args:
        query: Queries of all nodes, :math:`(N, H, d_H)`.
        key: Keys.
        value: Values.
        blocks: The blocks of the batch.
        bias: For each block its biases :math:`(G, H, n, n)`.
        dropout: Share of attention weights that is dropped.

    Returns:
        For each block what its nodes attend to, :math:`(G, n, H, d_H)`.
    """
    found = []
    for position, block in enumerate(blocks):
        q, k, v = (block.split(part).transpose(1, 2) for part in (query, key, value))
        # All four dimensions: with fewer PyTorch leaves its fused kernel (7 times slower on a CPU).
        mask = None if block.mask is None else block.mask[:, None, None]
        if bias is not None:
            mask = bias[position].to(q.dtype)
        found.append(F.scaled_dot_product_attention(q, k, v, mask, dropout).transpose(1, 2))
    return found


def table_attention(
    query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, bias: Bias | None, dropout: float = 0.0
) -> list[Tensor]:
    """The same with FlexAttention, which reads biases from their table: no number is held for every pair and head.

    It is for GPUs, where the kernel is compiled at the first call. Without a :class:`TableBias`, with dropout, which
    FlexAttention does not have, and for gradients on a CPU, which it does not have either, it is
    :func:`dense_attention`.
    """
    if not isinstance(bias, TableBias) or dropout or (query.device.type == "cpu" and query.requires_grad):
        return dense_attention(query, key, value, blocks, bias, dropout)
    table, kernel = bias.table.to(query.dtype), _flex_attention(query.device.type)
    found = []
    for block, position in zip(blocks, bias.positions, strict=True):
        q, k, v = (block.split(part).transpose(1, 2) for part in (query, key, value))

        def add(score: Tensor, g: Tensor, h: Tensor, i: Tensor, j: Tensor, position: Tensor = position) -> Tensor:
            return score + table[h, position[g, i, j]]

        found.append(kernel(q, k, v, score_mod=add).transpose(1, 2))
    return found


_COMPILED: Final = ("cuda", "xpu")


@functools.cache
def _flex_attention(device: str) -> Any:
    return torch.compile(flex_attention) if device in _COMPILED else flex_attention
