"""Attention on a CPU with biases from a trained table: 2 to 5 times faster than PyTorch's fused kernels.

These have no gradients of biases on a CPU, and give way to a dozen passes over all pairs and heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..utils.compat import has_plain_values

_CHUNK_SIZE: Final = 1 << 21
"""Numbers for pairs and heads in a chunk: eight megabytes, which a shared cache holds."""

_MIN_ROWS: Final = 64
"""Fewest queries in a chunk of one graph: gradients of its keys are added up once for each chunk."""


def lookup_bias(table: Tensor, column: Tensor) -> Tensor:
    """``table[:, column]``, with a backward pass that adds up in one sweep."""
    if (torch.is_grad_enabled() and table.requires_grad) or torch.get_num_threads() > 1:
        return table.gather(1, _per_head(table, column)).view(len(table), *column.shape)
    # With one thread this takes a third less time.
    return table.index_select(1, column.flatten().int()).view(len(table), *column.shape)


def _per_head(table: Tensor, column: Tensor) -> Tensor:
    return column.reshape(1, -1).long().expand(len(table), -1)


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
    q, k, v = (part.to(dtype).permute(2, 0, 3, 1).contiguous() for part in (query, key, value))
    output: Tensor = _TableAttention.apply(q, k, v, table.to(dtype), column)
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
                torch.gather(table, 1, _per_head(table, column[graphs, rows]), out=weight.view(heads, -1))
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
                grad_table.scatter_add_(1, columns, grad_score.view(heads, -1))
        return grad_query.mul_(scale), grad_key.mul_(scale), grad_value, grad_table, None


def _differentiable_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, table: Tensor, column: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of queries, keys, values and table by the formula, which has gradients itself."""
    scale = query.size(2) ** -0.5
    with torch.autocast("cpu", enabled=False):
        weight = (query.mT @ key * scale + lookup_bias(table, column)).softmax(-1)
        incoming = grad.mT @ value
        grad_score = weight * (incoming - (weight * incoming).sum(-1, keepdim=True))
        grad_table = torch.zeros_like(table).scatter_add(1, _per_head(table, column), grad_score.view(len(table), -1))
        return key @ grad_score.mT * scale, query @ grad_score * scale, grad @ weight, grad_table
