"""Rules for sparse matrices of activations: which of their elements are zero is unknown, so all or none are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..tracer import Tracer, rule
from ..values import CONSTANT, Value


def sparse(
    tracer: Tracer, shape: tuple[int, ...], dtype: torch.dtype, layout: torch.layout, value: Value | None
) -> Tensor:
    """A new abstract tensor of a sparse layout."""
    count = tracer.chosen(math.prod(shape))
    values = torch.empty(count, dtype=dtype, device="meta")
    if layout == torch.sparse_coo:
        indices = torch.empty((len(shape), count), dtype=torch.int64, device="meta")
        out = torch.sparse_coo_tensor(indices, values, shape, is_coalesced=True)
    else:
        rows, indices = (torch.empty(size, dtype=torch.int64, device="meta") for size in (_ends(shape, layout), count))
        out = torch.sparse_compressed_tensor(rows, indices, values, shape, layout=layout)
    tracer.origin(out).value = value or CONSTANT
    return out


def _ends(shape: tuple[int, ...], layout: torch.layout) -> int:
    """How many numbers say where the rows of a compressed matrix end, or its columns."""
    return 1 + (shape[0] if layout == torch.sparse_csr else shape[1])


def _converted(layout: torch.layout) -> Callable[..., Tensor]:
    def convert(tracer: Tracer, input: Tensor, *_: Any, layout: torch.layout | None = layout, **__: Any) -> Tensor:
        wanted = layout or torch.sparse_coo
        if input.layout == wanted:
            return input
        return sparse(tracer, input.shape, input.dtype, wanted, tracer.value(input))

    return convert


rule(Tensor.to_sparse)(_converted(torch.sparse_coo))
rule(Tensor.to_sparse_csr)(_converted(torch.sparse_csr))
rule(Tensor.to_sparse_csc)(_converted(torch.sparse_csc))


@rule(Tensor.to_dense)
def to_dense(tracer: Tracer, input: Tensor, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    """A sparse matrix with its zeros."""
    return tracer.emit(input.shape, dtype or input.dtype, tracer.value(input) or CONSTANT)
