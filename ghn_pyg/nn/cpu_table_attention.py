"""Attention on a CPU with biases from a trained table: 2 to 5 times faster than PyTorch's fused kernels.

These have no gradients of biases on a CPU, and give way to a dozen passes over all pairs and heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from ..utils.compat import has_plain_values

_CHUNK_SIZE: Final = 1 << 21
"""Numbers for pairs and heads in a chunk: eight megabytes, which a shared cache holds."""

_MIN_ROWS: Final = 64
"""Fewest queries in a chunk of one graph: gradients of its keys are added up once for each chunk."""

_MAX_PACKED_COLUMNS: Final = 128
"""Up to here it pays to look up pairs of columns: up to a twelfth of the time of attention with 100 columns."""

_MIN_LOOKUPS: Final = 1 << 12
"""Fewer lookups take less time than searching for the columns that occur."""


def lookup_bias(table: Tensor, column: Tensor) -> Tensor:
    """``table[:, column]``, with a backward pass that adds up in one sweep."""
    if (torch.is_grad_enabled() and table.requires_grad) or torch.get_num_threads() > 1:
        return lookup(table, column)
    # With one thread this takes a third less time.
    return table.index_select(1, column.flatten().int()).view(len(table), *column.shape)


def pack(table: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    r"""Packs the biases of two neighboring keys into one complex number, which halves the number of lookups.

    Args:
        table: The biases of each head, :math:`(H, T)`; the last column is that of padding.
        column: Columns :math:`(*, n)`.

    Returns:
        A complex table of all pairs of columns in the range that occurs, and the column of each pair of keys
        :math:`(*, \lceil n/2 \rceil)`; the missing key of an odd :math:`n` gets :math:`-\infty`. With too many
        columns, the real table of the range and the column of each key.
    """
    odd, (low, high) = column.size(-1) % 2, _used_range(column, table.size(1) - 1)
    used = torch.cat((table[:, low : high + 1], table[:, -1:]), dim=1)
    column = (column - low).clamp_(max=high - low + 1).int()
    if odd:
        used, column = F.pad(used, (0, 1), value=-torch.inf), F.pad(column, (0, 1), value=high - low + 2)
    width = used.size(1)
    if width > _MAX_PACKED_COLUMNS or 4 * width**2 > column.numel():
        return used, column
    left, right = used[:, :, None].expand(-1, -1, width), used[:, None].expand(-1, width, -1)
    first, second = column.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.view_as_complex(torch.stack((left, right), dim=3)).flatten(1), torch.add(second, first, alpha=width)


def _used_range(column: Tensor, padding: int) -> tuple[int, int]:
    """The first and the last column that occur, padding left out; all columns if there are few lookups."""
    if column.numel() < _MIN_LOOKUPS:
        return 0, padding - 1
    low, high = (int(end) for end in column.aminmax())
    if high == padding:
        high = int(column.masked_fill(column == padding, low).amax())
    return low, high


def lookup(table: Tensor, column: Tensor) -> Tensor:
    r"""The biases :math:`(H, *)` of columns of any shape, from a table that is packed or not (see :func:`pack`)."""
    values = table.gather(1, _per_head(table, column)).view(len(table), *column.shape)
    return torch.view_as_real(values).flatten(-2) if table.is_complex() else values


def _per_head(table: Tensor, column: Tensor) -> Tensor:
    return column.reshape(1, -1).long().expand(len(table), -1)


def _as_entries(table: Tensor, values: Tensor) -> Tensor:
    """A view of contiguous real numbers as entries (H, *) of the table: pairs of them if it is packed."""
    if table.is_complex():
        return torch.view_as_complex(values.view(len(table), -1, 2))
    return values.view(len(table), -1)


def cpu_table_attention(query: Tensor, key: Tensor, value: Tensor, table: Tensor, column: Tensor) -> Tensor:
    r"""Attention :math:`\mathrm{softmax}(Q K^\top / \sqrt{d_H} + B)\, V` with :math:`B` from a trained table.

    A chunk of the pairs goes through all steps while it is in the cache. The bias is never held as a whole: of each
    pair and head only the attention weight is kept for the backward pass.

    Args:
        query: Queries :math:`(G, n, H, d_H)`.
        key: Keys.
        value: Values.
        table: The biases of each head, :math:`(H, T)`.
        column: The column of each pair (query, key), :math:`(G, n, n)`.

    Returns:
        The attended values of each node, :math:`(G, n, H, d_H)`.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    packed, packed_column = pack(table.to(dtype), column)
    q, k, v = (part.to(dtype).permute(2, 0, 3, 1) for part in (query, key, value))
    if odd := column.size(2) % 2:
        k, v = F.pad(k, (0, odd)), F.pad(v, (0, odd))
    output: Tensor = _TableAttention.apply(q.contiguous(), k.contiguous(), v.contiguous(), packed, packed_column)
    return output.permute(1, 3, 0, 2).to(query.dtype)


def supports(table: Tensor, *states: Tensor) -> bool:
    r"""Whether :func:`cpu_table_attention` applies: a table on a CPU that needs gradients, in eager mode.

    Compilers, function transforms and forward-mode derivatives need the plain formula. So does a table with
    :math:`-\infty` outside of its last column, that of padding: a query could have no keys at all.
    """
    return (
        table.device.type == "cpu"
        and table.requires_grad
        and torch.is_grad_enabled()
        and has_plain_values(table, *states)
        and all(forward_ad.unpack_dual(part).tangent is None for part in (table, *states))
        and not bool(table.detach()[:, :-1].isneginf().any())
    )


class _Chunk(NamedTuple):
    """Some graphs, some of their queries, and the slice of all attention weights that is theirs."""

    graphs: slice
    rows: slice
    weights: slice


def _chunks(query: Tensor, key: Tensor) -> Iterator[_Chunk]:
    """Cuts queries and keys (H, G, d, n): several graphs in a chunk, or several queries of a large graph."""
    heads, graphs, _, nodes = query.shape
    per_row, start = heads * key.size(3), 0
    rows, step = min(nodes, max(_MIN_ROWS, _CHUNK_SIZE // per_row)), max(1, _CHUNK_SIZE // (per_row * nodes))
    for graph in range(0, graphs, step):
        count = min(step, graphs - graph)
        for row in range(0, nodes, rows):
            end = start + count * min(rows, nodes - row) * per_row
            yield _Chunk(slice(graph, graph + count), slice(row, min(row + rows, nodes)), slice(start, end))
            start = end


def _take(x: Tensor, graphs: slice, rows: slice = slice(None)) -> Tensor:
    """A chunk of (H, G, d, n) as matrices: (H · graphs, d, rows)."""
    return x[:, graphs, :, rows].flatten(0, 1)


class _TableAttention(torch.autograd.Function):
    """States are of shape (H, G, d, n): products with thin matrices on the left are up to three times as fast."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, table: Tensor, column: Tensor) -> Tensor:
        heads, scale = len(query), query.size(2) ** -0.5
        output, weights = torch.empty_like(query), query.new_empty(query[:, :, 0].numel() * key.size(3))
        with torch.autocast("cpu", enabled=False):
            for graphs, rows, part in _chunks(query, key):
                q, weight = _take(query, graphs, rows), weights[part]
                torch.gather(table, 1, _per_head(table, column[graphs, rows]), out=_as_entries(table, weight))
                weight = weight.view(len(q), q.size(2), -1).baddbmm_(q.mT, _take(key, graphs), alpha=scale)
                torch.softmax(weight, -1, out=weight)
                output[:, graphs, :, rows] = torch.bmm(_take(value, graphs), weight.mT).unflatten(0, (heads, -1))
        ctx.save_for_backward(query, key, value, table, column, output, weights)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        query, key, value, table, column, output, weights = ctx.saved_tensors
        if torch.is_grad_enabled() or not has_plain_values(grad):  # second derivatives, or is_grads_batched=True
            return *_differentiable_backward(grad, query, key, value, table, column), None
        heads, scale = len(query), query.size(2) ** -0.5
        grad_query, grad_key, grad_value, grad_table = (torch.zeros_like(x) for x in (query, key, value, table))
        # dS = P ∘ (dO Vᵀ - rowsum(dO ∘ O)): the second term is one more channel of dO, with ones in V.
        grad = torch.cat((grad, -(grad * output).sum(2, keepdim=True)), 2)
        value_and_ones = torch.cat((value, torch.ones_like(value[:, :, :1])), 2)
        with torch.autocast("cpu", enabled=False):
            for graphs, rows, part in _chunks(query, key):
                q, incoming = _take(query, graphs, rows), _take(grad, graphs, rows)
                weight = weights[part].view(len(q), q.size(2), -1)
                grad_value[:, graphs] += torch.bmm(incoming[:, :-1], weight).unflatten(0, (heads, -1))
                grad_score = torch.bmm(incoming.mT, _take(value_and_ones, graphs)).mul_(weight)
                back = torch.bmm(_take(key, graphs), grad_score.mT)
                grad_query[:, graphs, :, rows] = back.unflatten(0, (heads, -1))
                grad_key[:, graphs] += torch.bmm(q, grad_score).unflatten(0, (heads, -1))
                columns = _per_head(table, column[graphs, rows])
                grad_table.scatter_add_(1, columns, _as_entries(table, grad_score))
        return grad_query.mul_(scale), grad_key.mul_(scale), grad_value, grad_table, None


def _differentiable_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, table: Tensor, column: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of queries, keys, values and table by the formula, which has gradients itself."""
    scale = query.size(2) ** -0.5
    with torch.autocast("cpu", enabled=False):
        weight = (query.mT @ key * scale + lookup(table, column)).softmax(-1)
        incoming = grad.mT @ value
        grad_score = weight * (incoming - (weight * incoming).sum(-1, keepdim=True))
        grad_table = torch.zeros_like(table).scatter_add(1, _per_head(table, column), _as_entries(table, grad_score))
        return key @ grad_score.mT * scale, query @ grad_score * scale, grad @ weight, grad_table
