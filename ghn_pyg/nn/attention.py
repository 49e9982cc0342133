"""Attention inside each graph of a batch, with a bias for every pair of nodes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.checkpoint import checkpoint

from ..utils.compat import has_plain_values, in_transform
from ..utils.memory_guard import check_memory
from . import cpu_table_attention as cpu
from .blocks import Block, Blocks

_MAX_DENSE: Final = 1 << 27
"""Up to this many biases (512 MiB in float32) are looked up once for all layers. More of them"""

_ROWS_SIZE: Final = 1 << 22
"""are looked up in each layer, this many (16 MiB, which a cache may hold) at a time; for gradients"""

_ROWS_SIZE_FOR_GRADIENTS: Final = 1 << 24
"""this many, in tensors that the system takes back: smaller ones fragment the memory."""

_BYTES_PER_LOOKUP: Final = 12
"""Bytes for the column of a pair while its biases are looked up."""

_COMPILED_DEVICES: Final = ("cuda", "xpu")
_MIN_FLEX_CHANNELS: Final = 16

BIAS: Final = "the attention bias of all pairs of nodes"
SPARSE_INSTEAD: Final = "use a sparse encoder, such as GHNConfig(encoder='exphormer'), or a machine with more memory"


class TableBias(Sequence[Tensor]):
    r"""Biases of pairs of nodes that are looked up in a table.

    As a sequence it has the biases of each block, :math:`(G, H, n, n)`.

    Args:
        table: The biases of each head, :math:`(H, T)`.
        columns: For each block the column of each pair (query, key), :math:`(G, n, n)`, of any integer type.
        blocks: The blocks, whose padding is masked.
        extra: Biases of each block that are added to those of the table, :math:`(G, H, n, n)`.
    """

    def __init__(
        self, table: Tensor, columns: Sequence[Tensor], blocks: Blocks, extra: Sequence[Tensor] | None = None
    ) -> None:
        padding = table.size(1)
        self.table = torch.cat((table, table.new_full((len(table), 1), -torch.inf)), dim=1)
        wide_enough = [_with_room_for(part, padding) for part in columns]
        self.columns = [block.fill_padding(part, padding) for block, part in zip(blocks, wide_enough, strict=True)]
        self.blocks = blocks
        self.extra = extra

    @classmethod
    def of(cls, bias: Bias | None, blocks: Blocks, like: Tensor) -> TableBias:
        """Any biases as those of a table; ``like`` has the heads :math:`(N, H, d_H)`, the device and the type."""
        if isinstance(bias, TableBias):
            return bias
        shapes = [(block.count, block.size, block.size) for block in blocks]
        columns = [torch.zeros(shape, dtype=torch.int16, device=like.device) for shape in shapes]
        return cls(like.new_zeros(like.size(1), 1), columns, blocks, bias)

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, block: Any) -> Any:
        return self.dense()[block]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.dense())

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape (G, H, n, n) of each block."""
        return [(part.size(0), self.table.size(0), *part.shape[1:]) for part in self.columns]

    @functools.cached_property
    def may_hide_all_keys(self) -> bool:
        """Whether a query may have no keys at all, for which PyTorch's kernels have a rule."""
        return cpu.may_hide_all_keys(self.table, self.extra or ())

    @property
    def is_small(self) -> bool:
        """Whether the biases of all pairs and heads may be held at once."""
        return sum(map(math.prod, self.shapes)) <= _MAX_DENSE

    def dense(self) -> list[Tensor]:
        """The biases of each block, :math:`(G, H, n, n)`. Call it once if you call several layers.

        Raises:
            MemoryError: If they do not fit into the free memory.
        """
        numbers = sum(map(math.prod, self.shapes))
        pairs = numbers // len(self.table)
        needed = numbers * self.table.element_size() + _BYTES_PER_LOOKUP * pairs
        check_memory(needed, BIAS, SPARSE_INSTEAD, self.table.device)
        dense = [cpu.lookup_bias(self.table, column).transpose(0, 1) for column in self.columns]
        return dense if self.extra is None else list(map(torch.add, dense, self.extra))

    def dense_if_small(self) -> list[Tensor] | TableBias:
        """The biases of each block, or the table itself if there are so many that each layer looks them up."""
        return self.dense() if self.is_small else self


def _with_room_for(column: Tensor, largest: int) -> Tensor:
    """Columns in a signed type that holds one more."""
    if column.dtype.is_signed and largest <= torch.iinfo(column.dtype).max:
        return column
    return column.to(torch.int16 if largest <= torch.iinfo(torch.int16).max else torch.int32)


Bias = Sequence[Tensor]
"""The biases of each block of a batch, of shape (G, heads, n, n), or a :class:`TableBias`."""


def check_bias(bias: Bias, blocks: Blocks, heads: int) -> None:
    """Checks that biases fit the batch and the number of heads.

    Raises:
        ValueError: If they do not.
        TypeError: If they are a single tensor.
    """
    if isinstance(bias, Tensor):
        raise TypeError(
            f"bias expected a list with a tensor for each block, or a TableBias, got one tensor of "
            f"{tuple(bias.shape)}; for distances call SpatialEncoding(heads)(distance, blocks), for your own biases "
            "blocks.biases(values)"
        )
    expected = [(block.count, heads, block.size, block.size) for block in blocks]
    given: list[Sequence[Tensor]] = [bias]
    if isinstance(bias, TableBias) and bias.extra is not None:
        given.append(bias.extra)
    for biases in given:
        shapes = biases.shapes if isinstance(biases, TableBias) else [tuple(part.shape) for part in biases]
        if shapes != expected:
            raise ValueError(f"bias expected a tensor for each block, of the shapes {expected}, got {shapes}")


def add_biases(*biases: Bias) -> Bias:
    """The sum of biases of the same blocks: a list of tensors, or a :class:`TableBias` if one of them is.

    Example:
        >>> [block.tolist() for block in add_biases([torch.ones(1, 1, 1, 1)], [torch.ones(1, 1, 1, 1)])]
        [[[[[2.0]]]]]
    """
    tables = [bias for bias in biases if isinstance(bias, TableBias)]
    others = [bias for bias in biases if not isinstance(bias, TableBias)] + [bias.dense() for bias in tables[1:]]
    others += [bias.extra for bias in tables[:1] if bias.extra is not None]
    added = [functools.reduce(torch.add, parts) for parts in zip(*others, strict=True)]
    if not tables or not others:
        return tables[0] if tables else added
    first = tables[0]
    # Head by head, as attention reads them.
    return TableBias(first.table[:, :-1], first.columns, first.blocks, [part.contiguous() for part in added])


Attention = Callable[[Tensor, Tensor, Tensor, Blocks, Bias | None, float], list[Tensor]]


def prepare_bias(bias: Bias | None, blocks: Blocks, dropout: float, state: Tensor) -> Bias | None:
    """Biases in the form that is fastest for :func:`dense_attention`; call it once for several layers.

    It is a :class:`TableBias` if attention reads it from there, else a tensor for each block.

    Args:
        bias: The biases.
        blocks: The blocks of the batch.
        dropout: Probability that an attention weight is dropped.
        state: Queries of all nodes, :math:`(N, H, d_H)`.
    """
    if bias is not None:
        check_bias(bias, blocks, state.size(1))
    trained = dropout > 0 or (not isinstance(bias, TableBias) and any(part.requires_grad for part in bias or ()))
    if trained and state.device.type == "cpu" and has_plain_values(state) and torch.is_grad_enabled():
        bias = TableBias.of(bias, blocks, state)
    if isinstance(bias, TableBias) and not uses_cpu_table(bias, dropout, state):
        return bias.dense_if_small()
    return bias


def dense_attention(
    query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, bias: Bias | None, dropout: float = 0.0
) -> list[Tensor]:
    r"""Scaled-dot-product attention :math:`\mathrm{softmax}(Q K^\top / \sqrt{d_H} + B)\, V` with PyTorch's kernels.

    The kernels have neither gradients of biases nor dropout on a CPU: with up to :math:`2^{27}` biases, attention with
    them goes through :mod:`~ghn_pyg.nn.cpu_table_attention`. Inside transforms of functions it is the plain formula.

    Time grows with :math:`H n^2`, and so does memory up to :math:`2^{27}` biases in a batch (a graph of 4,096 nodes and
    8 heads). More biases of a :class:`TableBias` are looked up a few queries at a time: two bytes per pair of nodes are
    held then. For gradients they are computed again in the backward pass.

    Args:
        query: Queries of all nodes, :math:`(N, H, d_H)`.
        key: Keys.
        value: Values.
        blocks: The blocks of the batch.
        bias: The biases of each block :math:`(G, H, n, n)`, or a table of them.
        dropout: Probability that an attention weight is dropped.

    Returns:
        For each block the attended values of its nodes, :math:`(G, n, H, d_H)`.
    """
    bias = prepare_bias(bias, blocks, dropout, query)
    if uses_cpu_table(bias, dropout, query, key, value):
        extra: Sequence[Tensor | None] = bias.extra or [None] * len(bias)
        return [
            cpu.cpu_table_attention(
                block.split(query), block.split(key), block.split(value), bias.table, column, more, dropout
            )
            for block, column, more in zip(blocks, bias.columns, extra, strict=True)
        ]
    plain, outputs = in_transform(query, key, value), []
    for number, block in enumerate(blocks):
        q, k, v = (block.split(part).transpose(1, 2) for part in (query, key, value))
        if isinstance(bias, TableBias):
            attended = _by_rows(q, k, v, bias, number, dropout)
        else:
            mask = block_mask(block, None if bias is None else bias[number])
            mask = mask if mask is None or mask.dtype == torch.bool else mask.to(q.dtype)
            if plain:
                attended = plain_attention(q, k, v, mask, dropout)[0]
            else:
                attended = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        outputs.append(attended.transpose(1, 2))
    return outputs


def block_mask(block: Block, bias: Tensor | None) -> Tensor | None:
    """The biases of a block, or which keys are nodes, as PyTorch's attention takes them."""
    # The mask has four dimensions: with fewer PyTorch leaves its fused kernel (7 times slower on a CPU).
    return bias if bias is not None or block.mask is None else block.mask[:, None, None]


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> tuple[Tensor, Tensor]:
    """Attention of (G, H, n, d) by the formula, and its weights before dropout (G, H, n, n)."""
    score = query @ key.mT * query.size(-1) ** -0.5
    if mask is not None:
        score = score.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else score + mask
    weight = score.softmax(-1)
    return F.dropout(weight, dropout) @ value, weight


def attention_weights(query: Tensor, key: Tensor, blocks: Blocks, bias: Bias | None) -> list[Tensor]:
    """The weights of :func:`dense_attention` without dropout, for each block :math:`(G, H, n, n)`."""
    weights = []
    for block, own in zip(blocks, [None] * len(blocks.blocks) if bias is None else list(bias), strict=True):
        q, k = (block.split(part).transpose(1, 2) for part in (query, key))
        weights.append(plain_attention(q, k, k, block_mask(block, own), 0.0)[1])
    return weights


def _by_rows(q: Tensor, k: Tensor, v: Tensor, bias: TableBias, number: int, dropout: float) -> Tensor:
    """Attention of a few queries (G, H, rows, d) at a time, so that few biases are held."""
    table, column = bias.table, bias.columns[number]

    def attend(queries: Tensor, columns: Tensor, *extra: Tensor) -> Tensor:
        mask = cpu.lookup_bias(table, columns).transpose(0, 1).to(q.dtype)
        return F.scaled_dot_product_attention(queries, k, v, sum(extra, mask), dropout)

    numbers = _ROWS_SIZE_FOR_GRADIENTS if torch.is_grad_enabled() else _ROWS_SIZE
    rows = max(1, numbers // (column.size(0) * column.size(2) * len(table)))
    cut = [q.split(rows, dim=2), column.split(rows, dim=1)]
    if bias.extra is not None:
        cut.append(bias.extra[number].split(rows, dim=2))
    parts = zip(*cut, strict=True)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(attend, *part, use_reentrant=False) for part in parts], dim=2)
    output = torch.empty_like(q)  # allocated first: small tensors between large temporary ones fragment the memory
    for part, out in zip(parts, output.split(rows, dim=2), strict=True):
        out.copy_(attend(*part))
    return output


def uses_cpu_table(bias: Bias | None, dropout: float, *states: Tensor) -> TypeGuard[TableBias]:
    """Whether :func:`dense_attention` goes through :mod:`~ghn_pyg.nn.cpu_table_attention`."""
    return (
        isinstance(bias, TableBias)
        and bias.is_small
        and cpu.supports(bias.table, *states, extra=bias.extra or (), dropout=dropout)
        and not bias.may_hide_all_keys
    )


def table_attention(
    query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, bias: Bias | None, dropout: float = 0.0
) -> list[Tensor]:
    """The same with FlexAttention, which reads biases from their table: none is held for every pair and head.

    It is for GPUs, where the kernel is compiled at the first call. Heads of fewer than 16 channels, which it does not
    support there, are padded with zeros. Without a :class:`TableBias`, with dropout, and for gradients on a CPU, which
    FlexAttention does not support, and with more biases than those of the table it is :func:`dense_attention`.
    """
    if not uses_flex_attention(bias, dropout, query):
        return dense_attention(query, key, value, blocks, bias, dropout)
    check_bias(bias, blocks, query.size(1))
    table, kernel = bias.table.to(query.dtype), _flex_attention(query.device.type)
    channels, scale, outputs = query.size(-1), query.size(-1) ** -0.5, []
    if channels < _MIN_FLEX_CHANNELS and query.device.type in _COMPILED_DEVICES:
        query, key, value = (F.pad(part, (0, _MIN_FLEX_CHANNELS - channels)) for part in (query, key, value))
    for block, column in zip(blocks, [part.int() for part in bias.columns], strict=True):
        q, k, v = (block.split(part).transpose(1, 2) for part in (query, key, value))

        def add(score: Tensor, g: Tensor, h: Tensor, i: Tensor, j: Tensor, column: Tensor = column) -> Tensor:
            return score + table[h, column[g, i, j]]

        outputs.append(kernel(q, k, v, score_mod=add, scale=scale)[..., :channels].transpose(1, 2))
    return outputs


def uses_flex_attention(bias: Bias | None, dropout: float, state: Tensor) -> TypeGuard[TableBias]:
    """Whether :func:`table_attention` reads biases from their table."""
    if not isinstance(bias, TableBias) or bias.extra is not None or dropout:
        return False
    return not (state.device.type == "cpu" and state.requires_grad)


@functools.cache
def _flex_attention(device: str) -> Any:
    return torch.compile(flex_attention) if device in _COMPILED_DEVICES else flex_attention
