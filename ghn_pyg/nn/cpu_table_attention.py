"""Attention on a CPU with trained biases or dropout: 2 to 5 times faster than PyTorch's fused kernels.

These have neither gradients of biases nor dropout on a CPU, and give way to a dozen passes over all pairs and heads.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..utils.compat import has_plain_values

_CHUNK_SIZE: Final = 1 << 20
"""Numbers for pairs and heads in a chunk: four megabytes, a few of which a shared cache holds."""

_MIN_ROWS: Final = 64
"""Fewest queries in a chunk of one graph: gradients of its keys are added up once for each chunk."""


def lookup_bias(table: Tensor, column: Tensor) -> Tensor:
    """``table[:, column]``, with a backward pass that adds up in one sweep."""
    needs_grad = torch.is_grad_enabled() and table.requires_grad
    if needs_grad or torch.compiler.is_compiling() or torch.get_num_threads() > 1:
        return table.gather(1, _per_head(table, column)).view(len(table), *column.shape)
    # With one thread this takes a third less time.
    return table.index_select(1, column.flatten().int()).view(len(table), *column.shape)


def _per_head(table: Tensor, column: Tensor) -> Tensor:
    return column.reshape(1, -1).long().expand(len(table), -1)


class _SumOfColumns(torch.autograd.Function):
    """With gradients that are added up row by row, in a third of the time of those of ``index_select``."""

    @staticmethod
    def forward(ctx: Any, tables: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(tables, columns)
        sums = tables[0].index_select(1, columns[0])
        for table, column in zip(tables[1:], columns[1:], strict=True):
            sums += table.index_select(1, column)
        return sums

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        tables, columns = ctx.saved_tensors
        rows, zeros = grad.t().contiguous(), torch.zeros_like(tables[0].t())
        sums = [zeros.index_put((column.long(),), rows, accumulate=True) for column in columns]
        return torch.stack(sums).mT, None


def sum_of_columns(tables: Tensor, columns: Tensor) -> Tensor:
    r"""The sum :math:`\sum_l T_l[:, c_l]` of a column of each table, for many.

    Args:
        tables: Tables :math:`(L, H, T)`.
        columns: Columns :math:`(L, P)`, int32 or int64.

    Returns:
        Sums :math:`(H, P)`.
    """
    if has_plain_values(tables, columns) and forward_ad.unpack_dual(tables).tangent is None:
        sums: Tensor = _SumOfColumns.apply(tables, columns)
        return sums
    parts = zip(tables, columns, strict=True)
    return functools.reduce(torch.add, (table.index_select(1, column) for table, column in parts))


def cpu_table_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor,
    column: Tensor,
    extra: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    r"""Attention :math:`\mathrm{softmax}(Q K^\top / \sqrt{d_H} + B)\, V` with :math:`B` from a trained table.

    A chunk of the pairs goes through all steps while it is in the cache. The bias is never held as a whole: of each
    pair and head only the attention weight is kept for the backward pass, negative where it is dropped.

    Args:
        query: Queries :math:`(G, n, H, d_H)`.
        key: Keys.
        value: Values.
        table: The biases of each head, :math:`(H, T)`.
        column: The column of each pair (query, key), :math:`(G, n, n)`.
        extra: More biases, :math:`(G, H, n, n)`.
        dropout: Probability that an attention weight is dropped, rounded to a multiple of :math:`2^{-16}`.

    Returns:
        The attended values of each node, :math:`(G, n, H, d_H)`.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    q, k, v = (part.to(dtype).permute(2, 0, 3, 1).contiguous() for part in (query, key, value))
    extra = None if extra is None else extra.to(dtype)
    output: Tensor = _TableAttention.apply(q, k, v, table.to(dtype), column, extra, round(dropout * 2**16))
    return output.permute(1, 3, 0, 2).to(query.dtype)


def supports(table: Tensor, *states: Tensor, extra: Sequence[Tensor] = (), dropout: float = 0.0) -> bool:
    """Whether :func:`cpu_table_attention` applies: biases on a CPU that need gradients, or dropout, in eager mode.

    Compilers, function transforms and forward-mode derivatives need the plain formula. So do biases with which a query
    may have no keys at all, see :func:`may_hide_all_keys`.
    """
    biases = (table, *extra)
    return (
        table.device.type == "cpu"
        and torch.is_grad_enabled()
        and has_plain_values(*biases, *states)
        and (dropout > 0 or any(part.requires_grad for part in biases))
        and all(forward_ad.unpack_dual(part).tangent is None for part in (*biases, *states))
    )


def may_hide_all_keys(table: Tensor, extra: Sequence[Tensor] = ()) -> bool:
    r"""Whether there are biases of :math:`-\infty` other than those of padding, the last column of the table."""
    hidden = table.detach()[:, :-1].isneginf().any()
    return bool(hidden) or any(bool(part.detach().amax(-1).isneginf().any()) for part in extra)


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


def _drop_(weight: Tensor, threshold: int, out: Tensor) -> Tensor:
    """Makes dropped weights negative, from 16 random bits each; returns those that are left, others 0."""
    bits = torch.empty(-(-weight.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    out.view(-1).copy_(bits[: weight.numel()])
    weight.copysign_(out.sub_(threshold - 2**15 - 0.5))
    return torch.clamp(weight, min=0, out=out)


def _scratch(query: Tensor, key: Tensor) -> Tensor:
    """Memory for a few numbers of each pair and head of a chunk, which is taken from the system once."""
    first = next(_chunks(query, key)).weights
    return query.new_empty(2, first.stop - first.start)


class _TableAttention(torch.autograd.Function):
    """States are of shape (H, G, d, n): products with thin matrices on the left are up to three times as fast."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        table: Tensor,
        column: Tensor,
        extra: Tensor | None,
        threshold: int,
    ) -> Tensor:
        heads, scale, kept = len(query), query.size(2) ** -0.5, 1 - threshold / 2**16
        output, weights = torch.empty_like(query), query.new_empty(query[:, :, 0].numel() * key.size(3))
        scratch = _scratch(query, key)[0] if threshold else output
        with torch.autocast("cpu", enabled=False):
            for graphs, rows, part in _chunks(query, key):
                q, weight = _take(query, graphs, rows), weights[part]
                torch.gather(table, 1, _per_head(table, column[graphs, rows]), out=weight.view(heads, -1))
                if extra is not None:
                    more = extra[graphs, :, rows].transpose(0, 1)
                    weight.view(more.shape).add_(more)
                weight = weight.view(len(q), q.size(2), -1).baddbmm_(q.mT, _take(key, graphs), alpha=scale)
                torch.softmax(weight, -1, out=weight)
                left = _drop_(weight, threshold, scratch[: weight.numel()].view_as(weight)) if threshold else weight
                attended = torch.bmm(_take(value, graphs), left.mT)
                output[:, graphs, :, rows] = attended.unflatten(0, (heads, -1))
        if threshold:
            output.div_(kept)
        ctx.save_for_backward(query, key, value, table, column, extra, output, weights)
        ctx.kept, ctx.extra_needs_grad = kept, extra is not None and ctx.needs_input_grad[5]
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        query, key, value, table, column, extra, output, weights = ctx.saved_tensors
        if torch.is_grad_enabled() or not has_plain_values(grad):  # second derivatives, or is_grads_batched=True
            return *_differentiable_backward(grad, query, key, value, table, column, extra, weights, ctx.kept), None
        heads, scale, drops = len(query), query.size(2) ** -0.5, ctx.kept < 1
        grad_query, grad_key, grad_value, grad_table = (torch.zeros_like(x) for x in (query, key, value, table))
        grad_extra = torch.empty_like(extra) if ctx.extra_needs_grad else None
        # dS = P ∘ (dO Vᵀ - rowsum(dO ∘ O)): the second term is one more channel of dO, with ones in V.
        # With dropout dO Vᵀ counts where nothing was dropped only.
        inner = (grad * output).sum(2, keepdim=True)
        grad = grad / ctx.kept if drops else torch.cat((grad, -inner), 2)
        scratch = _scratch(query, key)
        factor = value if drops else torch.cat((value, torch.ones_like(value[:, :, :1])), 2)
        with torch.autocast("cpu", enabled=False):
            for graphs, rows, part in _chunks(query, key):
                q, incoming = _take(query, graphs, rows), _take(grad, graphs, rows)
                weight = weights[part].view(len(q), q.size(2), -1)
                score, spare = (part[: weight.numel()].view_as(weight) for part in scratch)
                left = torch.clamp(weight, min=0, out=spare) if drops else weight
                grad_value[:, graphs] += torch.bmm(incoming[:, : value.size(2)], left).unflatten(0, (heads, -1))
                grad_score = torch.bmm(incoming.mT, _take(factor, graphs), out=score).mul_(left)
                if drops:
                    grad_score.addcmul_(torch.abs(weight, out=spare), _take(inner, graphs, rows).mT, value=-1)
                back = torch.bmm(_take(key, graphs), grad_score.mT)
                grad_query[:, graphs, :, rows] = back.unflatten(0, (heads, -1))
                grad_key[:, graphs] += torch.bmm(q, grad_score).unflatten(0, (heads, -1))
                if ctx.needs_input_grad[3]:
                    columns = _per_head(table, column[graphs, rows])
                    grad_table.scatter_add_(1, columns, grad_score.view(heads, -1))
                if grad_extra is not None:
                    more = grad_extra[graphs, :, rows].transpose(0, 1)
                    more.copy_(grad_score.view(more.shape))
        return grad_query.mul_(scale), grad_key.mul_(scale), grad_value, grad_table, None, grad_extra, None


def _differentiable_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor,
    column: Tensor,
    extra: Tensor | None,
    weights: Tensor,
    kept: float,
) -> tuple[Tensor | None, ...]:
    """The gradients of queries, keys, values and biases by the formula, which has gradients itself."""
    scale, keep = query.size(2) ** -0.5, query.new_ones(())
    with torch.autocast("cpu", enabled=False):
        score = query.mT @ key * scale + lookup_bias(table, column)
        weight = (score if extra is None else score + extra.transpose(0, 1)).softmax(-1)
        if kept < 1:
            positive = torch.empty_like(weight, dtype=torch.bool)
            for graphs, rows, part in _chunks(query, key):
                own = positive[:, graphs, rows]
                own.copy_((weights[part] > 0).view(own.shape))
            keep = positive / kept
        incoming = (grad.mT @ value) * keep
        grad_score = weight * (incoming - (weight * incoming).sum(-1, keepdim=True))
        grad_table = torch.zeros_like(table).scatter_add(1, _per_head(table, column), grad_score.view(len(table), -1))
        grad_extra = None if extra is None else grad_score.transpose(0, 1)
        states = key @ grad_score.mT * scale, query @ grad_score * scale, grad @ (weight * keep)
        return *states, grad_table, None, grad_extra
