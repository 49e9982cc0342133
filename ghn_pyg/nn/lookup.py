"""Attention on a CPU with biases that are looked up in a table, and gradients of the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import forward_ad

_PIECE: Final = 1 << 19
"""Numbers for pairs and heads in one piece: two megabytes, about what a core's cache holds."""

_ROWS: Final = 64
"""Fewest queries in one piece of a graph: what is added up for keys is paid once for each piece."""


def lookup_bias(table: Tensor, position: Tensor) -> Tensor:
    """``table[:, position]``, with a backward pass that adds up in one sweep."""
    if torch.is_grad_enabled() and table.requires_grad:
        found = table.gather(1, _columns(table, position))
    else:  # two to three times faster, but not backward
        found = table.index_select(1, position.flatten().int())
    return found.view(table.size(0), *position.shape)


def _columns(table: Tensor, position: Tensor) -> Tensor:
    return position.reshape(1, -1).long().expand(table.size(0), -1)


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
    found: Tensor = _LookupAttention.apply(*(part.to(dtype) for part in (query, key, value, table)), position)
    return found.to(query.dtype)


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
        and not any(_transformed(part) for part in (table, *others))
        and all(forward_ad.unpack_dual(part).tangent is None for part in (table, *others))
        and not bool(table.detach()[:, :-1].isneginf().any())
    )


def _transformed(x: Tensor) -> bool:
    return torch._C._are_functorch_transforms_active() or torch._C._functorch.is_legacy_batchedtensor(x)


def pieces(heads: int, shape: torch.Size) -> Iterator[tuple[slice, slice]]:
    """Graphs and queries of each piece."""
    graphs, nodes = shape[:2]
    rows = min(nodes, max(_ROWS, _PIECE // (heads * nodes)))
    together = max(1, _PIECE // (heads * nodes * nodes))
    for graph in range(0, graphs, together):
        for row in range(0, nodes, rows):
            yield slice(graph, min(graph + together, graphs)), slice(row, min(row + rows, nodes))


def _take(x: Tensor, *place: slice) -> Tensor:
    """A piece of (G, n, H, d) as matrices: (H · graphs, rows, d)."""
    return x[place].permute(2, 0, 1, 3).flatten(0, 1)


def _back(x: Tensor, heads: int) -> Tensor:
    """The inverse of :func:`_take`."""
    return x.unflatten(0, (heads, -1)).permute(1, 2, 0, 3)


class _LookupAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, table: Tensor, position: Tensor) -> Tensor:
        heads, scale, end = len(table), query.size(-1) ** -0.5, 0
        found, weights = torch.empty_like(query), query.new_empty(heads * position.numel())
        with torch.autocast("cpu", enabled=False):
            for place in pieces(heads, position.shape):
                graphs, columns = place[0], _columns(table, position[place])
                start, end = end, end + columns.numel()
                q, weight = _take(query, *place), weights[start:end]
                torch.gather(table, 1, columns, out=weight.view(heads, -1))
                weight = weight.view(len(q), q.size(1), -1).baddbmm_(q, _take(key, graphs).mT, alpha=scale)
                torch.softmax(weight, -1, out=weight)
                found[place] = _back(torch.bmm(weight, _take(value, graphs)), heads)
        ctx.save_for_backward(query, key, value, table, position, found, weights)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, table, position, found, weights = ctx.saved_tensors
        if torch.is_grad_enabled() or _transformed(gradient):  # gradients of gradients, or of many results at once
            return *_gradients(gradient, query, key, value, table, position), None
        heads, scale, end = len(table), query.size(-1) ** -0.5, 0
        to_query, to_key, to_value, to_table = (torch.zeros_like(part) for part in (query, key, value, table))
        # One more channel takes off what the softmax does: dS = P ∘ (dO Vᵀ - rowsum(dO ∘ O)).
        mean = (gradient * found).sum(-1, keepdim=True)
        longer, ones = torch.cat((gradient, -mean), -1), torch.cat((value, torch.ones_like(mean)), -1)
        with torch.autocast("cpu", enabled=False):
            for place in pieces(heads, position.shape):
                graphs, columns = place[0], _columns(table, position[place])
                start, end = end, end + columns.numel()
                q, k, incoming = _take(query, *place), _take(key, graphs), _take(longer, *place)
                weight = weights[start:end].view(len(q), -1, k.size(1))
                to_value[graphs] += _back(torch.bmm(incoming[..., :-1].mT, weight).mT, heads)
                to_scores = torch.bmm(incoming, _take(ones, graphs).mT).mul_(weight)
                to_query[place] = _back(torch.bmm(to_scores, k), heads)
                to_key[graphs] += _back(torch.bmm(q.mT, to_scores).mT, heads)
                to_table.scatter_add_(1, columns, to_scores.view(heads, -1))
        return to_query.mul_(scale), to_key.mul_(scale), to_value, to_table, None


def _gradients(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, table: Tensor, position: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of queries, keys, values and table by the formula, which can be differentiated again."""
    scale = query.size(-1) ** -0.5
    query, key, value, gradient = (part.permute(2, 0, 1, 3) for part in (query, key, value, gradient))
    weight = (query @ key.mT * scale + lookup_bias(table, position)).softmax(-1)
    incoming = gradient @ value.mT
    to_scores = weight * (incoming - (weight * incoming).sum(-1, keepdim=True))
    found = (to_scores @ key * scale, to_scores.mT @ query * scale, weight.mT @ gradient)
    to_table = torch.zeros_like(table).scatter_add(1, _columns(table, position), to_scores.reshape(len(table), -1))
    return *(part.permute(1, 2, 0, 3) for part in found), to_table
