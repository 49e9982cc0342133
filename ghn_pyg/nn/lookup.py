"""Attention on a CPU with biases that are looked up in a table, and gradients of the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

_PIECE: Final = 1 << 21
"""Numbers for pairs and heads in one piece: eight megabytes, which the cache that cores share holds."""

_ROWS: Final = 64
"""Fewest queries in one piece of a graph: what is added up for keys is paid once for each piece."""

_TWINS: Final = 128
"""With 200 columns, pairs of them take as long as single ones; with 100, attention takes up to a twelfth less time."""

_FEW: Final = 1 << 12
"""Fewer lookups take less time than finding out which columns occur."""


def lookup_bias(table: Tensor, position: Tensor) -> Tensor:
    """``table[:, position]``, with a backward pass that adds up in one sweep."""
    if (torch.is_grad_enabled() and table.requires_grad) or torch.get_num_threads() > 1:
        return entries_at(table, position)
    # For one thread this takes a third less.
    return table.index_select(1, position.flatten().int()).view(len(table), *position.shape)


def twins(table: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    r"""Puts two numbers that will stand side by side into one complex number, which halves the lookups.

    Args:
        table: The biases of each head, :math:`(H, T)`.
        position: Columns :math:`(*, n)`; all but the last lie close together.

    Returns:
        A table of all pairs of columns between the first and the last that occur, and the column of each pair
        :math:`(*, \lceil n/2 \rceil)`; what an odd :math:`n` lacks is :math:`-\infty`. Where there are more pairs of
        columns than pays, these columns and for each number its column.
    """
    odd, (low, high) = position.size(-1) % 2, _range(position, table.size(1) - 1)
    used = torch.cat((table[:, low : high + 1], table[:, -1:]), dim=1)
    column = (position - low).clamp_(max=high - low + 1).int()
    if odd:
        used, column = F.pad(used, (0, 1), value=-torch.inf), F.pad(column, (0, 1), value=high - low + 2)
    columns = used.size(1)
    if columns > _TWINS or 4 * columns**2 > column.numel():
        return used, column
    left, right = used[:, :, None].expand(-1, -1, columns), used[:, None].expand(-1, columns, -1)
    first, second = column.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.view_as_complex(torch.stack((left, right), dim=3)).flatten(1), torch.add(second, first, alpha=columns)


def _range(position: Tensor, hidden: int) -> tuple[int, int]:
    """The first and the last column that occur, but for the one that hides padding; of few, those that may occur."""
    if position.numel() < _FEW:
        return 0, hidden - 1
    low, high = (int(end) for end in position.aminmax())
    if high == hidden:
        high = int(position.masked_fill(position == hidden, low).amax())
    return low, high


def entries_at(entries: Tensor, column: Tensor) -> Tensor:
    r"""The real numbers of a table of either kind (see :func:`twins`): :math:`(H, *)` for columns of any shape."""
    found = entries.gather(1, _columns(entries, column)).view(len(entries), *column.shape)
    return torch.view_as_real(found).flatten(-2) if entries.is_complex() else found


def _columns(entries: Tensor, column: Tensor) -> Tensor:
    return column.reshape(1, -1).long().expand(len(entries), -1)


def _like(entries: Tensor, numbers: Tensor) -> Tensor:
    """Real numbers, all in one piece, as elements (H, *) of a table."""
    if entries.is_complex():
        return torch.view_as_complex(numbers.view(len(entries), -1, 2))
    return numbers.view(len(entries), -1)


def lookup_attention(query: Tensor, key: Tensor, value: Tensor, table: Tensor, position: Tensor) -> Tensor:
    r"""Attention :math:`\mathrm{softmax}(Q K^\top / \sqrt{d_H} + B)\, V` with :math:`B` from a table that is trained.

    With a bias that has gradients, PyTorch's fused kernels give way to a dozen passes over numbers for all pairs and
    heads. Here a piece of the pairs goes through all steps while it is in the cache, the bias is never there as a
    whole, and of each pair and head the attention weight alone is kept for the backward pass.

    Args:
        query: Queries :math:`(G, n, H, d_H)`.
        key: Keys.
        value: Values.
        table: The biases of each head, :math:`(H, T)`.
        position: The column of each pair (query, key), :math:`(G, n, n)`.

    Returns:
        What each node attends to, :math:`(G, n, H, d_H)`.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    entries, column = twins(table.to(dtype), position)
    q, k, v = (part.to(dtype).permute(2, 0, 3, 1) for part in (query, key, value))
    if odd := position.size(2) % 2:
        k, v = F.pad(k, (0, odd)), F.pad(v, (0, odd))
    found: Tensor = _LookupAttention.apply(q.contiguous(), k.contiguous(), v.contiguous(), entries, column)
    return found.permute(1, 3, 0, 2).to(query.dtype)


def can_look_up(table: Tensor, *others: Tensor) -> bool:
    r"""Whether :func:`lookup_attention` is for these: on a CPU, with gradients, and without anything around them.

    A compiler, transforms of functions and derivatives in forward direction want the formula. So does a table with
    :math:`-\infty`, by which a query may have no keys at all; the last column, which hides padding, may hold it.
    """
    return (
        table.device.type == "cpu"
        and table.requires_grad
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not is_transformed(table, *others)
        and all(forward_ad.unpack_dual(part).tangent is None for part in (table, *others))
        and not bool(table.detach()[:, :-1].isneginf().any())
    )


def is_transformed(*tensors: Tensor) -> bool:
    """Whether tensors stand for others, or have no numbers that could be looked at."""
    return torch._C._are_functorch_transforms_active() or any(
        torch._C._functorch.is_legacy_batchedtensor(x) or isinstance(x, FakeTensor) for x in tensors
    )


class Piece(NamedTuple):
    """What is computed at a time: some graphs, some of their queries, and where their numbers stand among all."""

    graphs: slice
    rows: slice
    numbers: slice


def pieces(query: Tensor, key: Tensor) -> Iterator[Piece]:
    """Cuts queries and keys (H, G, d, n)."""
    heads, graphs, _, nodes = query.shape
    keys, start = heads * key.size(3), 0
    rows, together = min(nodes, max(_ROWS, _PIECE // keys)), max(1, _PIECE // (keys * nodes))
    for graph in range(0, graphs, together):
        count = min(together, graphs - graph)
        for row in range(0, nodes, rows):
            end = start + count * min(rows, nodes - row) * keys
            yield Piece(slice(graph, graph + count), slice(row, min(row + rows, nodes)), slice(start, end))
            start = end


def _take(x: Tensor, graphs: slice, rows: slice = slice(None)) -> Tensor:
    """A piece of (H, G, d, n) as matrices: (H · graphs, d, rows)."""
    return x[:, graphs, :, rows].flatten(0, 1)


class _LookupAttention(torch.autograd.Function):
    """States are of shape (H, G, d, n): thin matrices from the left are multiplied up to three times as fast."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, entries: Tensor, column: Tensor) -> Tensor:
        heads, scale = len(query), query.size(2) ** -0.5
        found, weights = torch.empty_like(query), query.new_empty(query[:, :, 0].numel() * key.size(3))
        with torch.autocast("cpu", enabled=False):
            for graphs, rows, numbers in pieces(query, key):
                q, weight = _take(query, graphs, rows), weights[numbers]
                torch.gather(entries, 1, _columns(entries, column[graphs, rows]), out=_like(entries, weight))
                weight = weight.view(len(q), q.size(2), -1).baddbmm_(q.mT, _take(key, graphs), alpha=scale)
                torch.softmax(weight, -1, out=weight)
                found[:, graphs, :, rows] = torch.bmm(_take(value, graphs), weight.mT).unflatten(0, (heads, -1))
        ctx.save_for_backward(query, key, value, entries, column, found, weights)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, entries, column, found, weights = ctx.saved_tensors
        if torch.is_grad_enabled() or is_transformed(gradient):  # gradients of gradients, or of many results at once
            return *_gradients(gradient, query, key, value, entries, column), None
        heads, scale = len(query), query.size(2) ** -0.5
        to_query, to_key, to_value, to_entries = (torch.zeros_like(part) for part in (query, key, value, entries))
        # One more channel takes off what the softmax does: dS = P ∘ (dO Vᵀ - rowsum(dO ∘ O)).
        mean = (gradient * found).sum(2, keepdim=True)
        longer, ones = torch.cat((gradient, -mean), 2), torch.cat((value, torch.ones_like(value[:, :, :1])), 2)
        with torch.autocast("cpu", enabled=False):
            for graphs, rows, numbers in pieces(query, key):
                q, incoming = _take(query, graphs, rows), _take(longer, graphs, rows)
                weight = weights[numbers].view(len(q), q.size(2), -1)
                to_value[:, graphs] += torch.bmm(incoming[:, :-1], weight).unflatten(0, (heads, -1))
                to_scores = torch.bmm(incoming.mT, _take(ones, graphs)).mul_(weight)
                back = torch.bmm(_take(key, graphs), to_scores.mT)
                to_query[:, graphs, :, rows] = back.unflatten(0, (heads, -1))
                to_key[:, graphs] += torch.bmm(q, to_scores).unflatten(0, (heads, -1))
                columns = _columns(entries, column[graphs, rows])
                to_entries.scatter_add_(1, columns, _like(entries, to_scores))
        return to_query.mul_(scale), to_key.mul_(scale), to_value, to_entries, None


def _gradients(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, entries: Tensor, column: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of queries, keys, values and table by the formula, which can be differentiated again."""
    scale = query.size(2) ** -0.5
    with torch.autocast("cpu", enabled=False):
        weight = (query.mT @ key * scale + entries_at(entries, column)).softmax(-1)
        incoming = gradient.mT @ value
        to_scores = weight * (incoming - (weight * incoming).sum(-1, keepdim=True))
        to_entries = torch.zeros_like(entries).scatter_add(1, _columns(entries, column), _like(entries, to_scores))
        return key @ to_scores.mT * scale, query @ to_scores * scale, gradient @ weight, to_entries
