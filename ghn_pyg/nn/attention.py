"""Attention inside each graph of a batch, with a bias for every pair of nodes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.checkpoint import checkpoint

from .lookup import can_look_up, lookup_attention, lookup_bias
from .memory import check_room
from .ragged import Blocks

_HELD: Final = 1 << 27
"""As many biases (512 MiB in float32) are looked up once for all layers. Where there are more,"""

_BYTES_TO_LOOK_UP: Final = 12
"""Bytes for the columns of a pair while its biases are looked up."""

_AT_A_TIME: Final = 1 << 22
"""as many (16 MiB, which caches may hold) are looked up just before they are used, in each layer; for gradients"""

_AT_A_TIME_FOR_GRADIENTS: Final = 1 << 24
"""as many, in blocks that the system takes back: smaller ones leave the memory in pieces."""


class TableBias:
    r"""Biases that are looked up in a table: as many different ones as the table has columns.

    Args:
        table: The biases of each head, :math:`(H, T)`.
        positions: For each block the column of each pair (query, key), :math:`(G, n, n)`, of any integer type.
        blocks: The blocks, whose padding is hidden.
    """

    def __init__(self, table: Tensor, positions: Sequence[Tensor], blocks: Blocks) -> None:
        hidden = table.new_full((len(table), 1), -torch.inf)
        self.table = torch.cat((table, hidden), dim=1)
        columns = [_wide_enough(part, table.size(1)) for part in positions]
        self.positions = [block.hide(part, table.size(1)) for block, part in zip(blocks, columns, strict=True)]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """For each block (G, H, n, n)."""
        return [(len(part), len(self.table), *part.shape[1:]) for part in self.positions]

    def dense(self) -> list[Tensor]:
        """The biases themselves: for each block :math:`(G, H, n, n)`. Who calls several layers calls it once.

        Raises:
            MemoryError: If there is no room for them.
        """
        numbers = sum(map(math.prod, self.shapes))
        pairs = numbers // len(self.table)
        check_room(numbers * self.table.element_size() + _BYTES_TO_LOOK_UP * pairs, pairs, self.table.device)
        return [lookup_bias(self.table, position).transpose(0, 1) for position in self.positions]

    @property
    def few(self) -> bool:
        """Whether there is room for a number for each pair and head."""
        return sum(map(math.prod, self.shapes)) <= _HELD

    def held(self) -> list[Tensor] | TableBias:
        """The biases themselves, unless there are so many that they are better looked up in each layer."""
        return self.dense() if self.few else self


def _wide_enough(position: Tensor, hidden: int) -> Tensor:
    """Columns in a type that holds the number of one more."""
    if position.dtype.is_signed and hidden <= torch.iinfo(position.dtype).max:
        return position
    return position.to(torch.int16 if hidden <= torch.iinfo(torch.int16).max else torch.int32)


Bias = Sequence[Tensor] | TableBias
"""For each block of a batch the biases of its pairs, of shape (G, heads, n, n), or a table of them."""


def check_bias(bias: Bias, blocks: Blocks, heads: int) -> None:
    """Finds out whether biases are of another batch or another number of heads.

    Raises:
        ValueError: If they are.
        TypeError: If it is a tensor.
    """
    if isinstance(bias, Tensor):
        raise TypeError(
            f"bias expected a tensor for each block, in a list, or a TableBias, got one tensor of {tuple(bias.shape)}; "
            "for distances call SpatialEncoding(heads)(distance, blocks), for one's own biases blocks.biases(values)"
        )
    shapes = bias.shapes if isinstance(bias, TableBias) else [tuple(part.shape) for part in bias]
    expected = [(len(block.graphs), heads, block.size, block.size) for block in blocks]
    if shapes != expected:
        raise ValueError(f"bias expected a tensor for each block, of the shapes {expected}, got {shapes}")


def add_biases(*biases: Bias) -> list[Tensor]:
    """The sum of biases of the same blocks, as tensors: a table is none afterwards.

    Example:
        >>> [block.tolist() for block in add_biases([torch.ones(1, 1, 1, 1)], [torch.ones(1, 1, 1, 1)])]
        [[[[[2.0]]]]]
    """
    dense = [bias.dense() if isinstance(bias, TableBias) else bias for bias in biases]
    return [functools.reduce(torch.add, parts) for parts in zip(*dense, strict=True)]


Attention = Callable[[Tensor, Tensor, Tensor, Blocks, Bias | None, float], list[Tensor]]


def dense_attention(
    query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, bias: Bias | None, dropout: float = 0.0
) -> list[Tensor]:
    r"""Scaled-dot-product attention :math:`\mathrm{softmax}(Q K^\top / \sqrt{d_H} + B)\, V` on PyTorch's fused kernels.

    They have no gradients of biases on a CPU: for a :class:`TableBias` that is trained there, without dropout and of up
    to :math:`2^{27}` biases, it is :func:`~ghn_pyg.nn.lookup.lookup_attention`.

    Time grows with :math:`H n^2`, and so does memory up to :math:`2^{27}` biases in a batch (a graph of 4,096 nodes and
    8 heads). Those of more, as a :class:`TableBias`, are looked up for some queries after another: no more than two
    bytes for a pair of nodes are held then. For gradients they are computed again in the backward pass.

    Args:
        query: Queries of all nodes, :math:`(N, H, d_H)`.
        key: Keys.
        value: Values.
        blocks: The blocks of the batch.
        bias: For each block its biases :math:`(G, H, n, n)`, or a table of them.
        dropout: Share of attention weights that is dropped.

    Returns:
        For each block what its nodes attend to, :math:`(G, n, H, d_H)`.
    """
    if is_looked_up(bias, dropout, query, key, value):
        return _looked_up(query, key, value, blocks, bias)
    found = []
    if bias is not None:
        check_bias(bias, blocks, query.size(1))
        bias = bias.held() if isinstance(bias, TableBias) else bias
    for position, block in enumerate(blocks):
        q, k, v = (block.split(part).transpose(1, 2) for part in (query, key, value))
        if isinstance(bias, TableBias):
            attended = _by_rows(q, k, v, bias.table, bias.positions[position], dropout)
        else:
            # All four dimensions: with fewer PyTorch leaves its fused kernel (7 times slower on a CPU).
            mask = None if block.mask is None else block.mask[:, None, None]
            if bias is not None:
                mask = bias[position].to(q.dtype)
            attended = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        found.append(attended.transpose(1, 2))
    return found


def _by_rows(q: Tensor, k: Tensor, v: Tensor, table: Tensor, position: Tensor, dropout: float) -> Tensor:
    """Attention of some queries (G, H, rows, d) after another, so that few biases are held at a time."""

    def attend(some: Tensor, columns: Tensor) -> Tensor:
        mask = lookup_bias(table, columns).transpose(0, 1).to(q.dtype)
        return F.scaled_dot_product_attention(some, k, v, mask, dropout)

    numbers = _AT_A_TIME_FOR_GRADIENTS if torch.is_grad_enabled() else _AT_A_TIME
    rows = max(1, numbers // (position.size(0) * position.size(2) * len(table)))
    parts = zip(q.split(rows, dim=2), position.split(rows, dim=1), strict=True)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(attend, *part, use_reentrant=False) for part in parts], dim=2)
    found = torch.empty_like(q)  # made first: small tensors between large ones that go leave the memory in pieces
    for part, place in zip(parts, found.split(rows, dim=2), strict=True):
        place.copy_(attend(*part))
    return found


def is_looked_up(bias: Bias | None, dropout: float, *states: Tensor) -> TypeGuard[TableBias]:
    """Whether :func:`dense_attention` looks biases up piece by piece, because their table is trained on a CPU."""
    return isinstance(bias, TableBias) and bias.few and not dropout and can_look_up(bias.table, *states)


def _looked_up(query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, bias: TableBias) -> list[Tensor]:
    check_bias(bias, blocks, query.size(1))
    return [
        lookup_attention(block.split(query), block.split(key), block.split(value), bias.table, position)
        for block, position in zip(blocks, bias.positions, strict=True)
    ]


def table_attention(
    query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, bias: Bias | None, dropout: float = 0.0
) -> list[Tensor]:
    """The same with FlexAttention, which reads biases from their table: no number is held for every pair and head.

    It is for GPUs, where the kernel is compiled at the first call; heads of fewer than 16 channels, which it does not
    take there, are filled up with zeros. Without a :class:`TableBias`, with dropout, which
    FlexAttention does not have, and for gradients on a CPU, which it does not have either, it is
    :func:`dense_attention`. :func:`add_biases` and :class:`~ghn_pyg.nn.GraphToken` make tensors of tables, so that
    what they return is computed as by :func:`dense_attention`.
    """
    if not is_flexible(bias, dropout, query):
        return dense_attention(query, key, value, blocks, bias, dropout)
    check_bias(bias, blocks, query.size(1))
    table, kernel = bias.table.to(query.dtype), _flex_attention(query.device.type)
    channels, scale, found = query.size(-1), query.size(-1) ** -0.5, []
    if channels < _FEWEST_CHANNELS and query.device.type in _COMPILED:
        query, key, value = (F.pad(part, (0, _FEWEST_CHANNELS - channels)) for part in (query, key, value))
    for block, position in zip(blocks, [part.int() for part in bias.positions], strict=True):
        q, k, v = (block.split(part).transpose(1, 2) for part in (query, key, value))

        def add(score: Tensor, g: Tensor, h: Tensor, i: Tensor, j: Tensor, position: Tensor = position) -> Tensor:
            return score + table[h, position[g, i, j]]

        found.append(kernel(q, k, v, score_mod=add, scale=scale)[..., :channels].transpose(1, 2))
    return found


def is_flexible(bias: Bias | None, dropout: float, state: Tensor) -> TypeGuard[TableBias]:
    """Whether :func:`table_attention` reads biases from their table."""
    return isinstance(bias, TableBias) and not dropout and not (state.device.type == "cpu" and state.requires_grad)


_COMPILED: Final = ("cuda", "xpu")
_FEWEST_CHANNELS: Final = 16


@functools.cache
def _flex_attention(device: str) -> Any:
    return torch.compile(flex_attention) if device in _COMPILED else flex_attention
