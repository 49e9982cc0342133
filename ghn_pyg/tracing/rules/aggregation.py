"""Rules for sums, and for what gathers and scatters rows, as graph networks do to pass messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from ...utils.compat import functions
from ...utils.nested_tensors import tensors_in
from ..tracer import Rule, Tracer, rule
from .linear_and_matmul import weighted_sum
from .means import dimensions
from .open_layers import carry, is_constant, open_in, reduced, summed

_ROWWISE: Final = """
    expand index_add index_add_ index_put index_put_ masked_fill masked_fill_ repeat scatter scatter_ scatter_add
    scatter_add_ scatter_reduce scatter_reduce_ segment_reduce
"""


@rule(*functions("sum"))
def total(tracer: Tracer, input: Tensor, dim: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    """A sum; over the features of a product with a vector of parameters, it is a linear layer."""
    dims = dimensions(dim, input.dim())
    if dims == [input.dim() - 1] and (layer := weighted_sum(tracer, input)) is not None:
        return tracer.view(layer, (*layer.shape, 1)) if keepdim else layer
    out: Tensor = tracer.default(torch.sum, (input, dim, keepdim), options)
    return reduced(tracer, out, input, dims)


def _rowwise(function: Callable[..., Any]) -> Rule:
    """A function that adds up, chooses or repeats whole rows."""
    mixes = function.__name__.startswith(("index_add", "index_put", "scatter", "segment"))

    def rows(tracer: Tracer, *args: Any, **kwargs: Any) -> Tensor:
        values = [tensor for tensor in tensors_in((args, kwargs)) if tensor.is_floating_point()]
        varying = [value for value in values if not is_constant(tracer, value)]
        found = open_in(tracer, varying[0]) if len(varying) == 1 else summed(tracer, *values)
        out: Tensor = tracer.default(function, args, kwargs)
        if found is None:
            return out
        return carry(tracer, out, found._replace(mixed=found.mixed or mixes), varying[-1].shape)

    return rows


for _function in functions(_ROWWISE):
    rule(_function)(_rowwise(_function))


@rule(*functions("repeat_interleave"))
def repeat_interleave(tracer: Tracer, input: Tensor, repeats: Any, dim: int | None = None, **options: Any) -> Tensor:
    """Repeats each row as often as another tensor says; if activations decide, once."""
    if isinstance(repeats, Tensor) and options.get("output_size") is None:
        rows = input.numel() if dim is None else input.shape[dim]
        known = not tracer.is_abstract(repeats)
        count = int(repeats.expand(rows).sum()) if known else tracer.chosen(rows)
        options["output_size"] = count
    args = (input, repeats) if dim is None else (input, repeats, dim)
    out: Tensor = tracer.default(torch.repeat_interleave, args, options)
    return carry(tracer, out, open_in(tracer, input), input.shape)
