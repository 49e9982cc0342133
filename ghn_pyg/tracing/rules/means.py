"""Rules for means and other statistics: global averages, and parts of norms that are written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...utils.compat import functions
from ...utils.nested_tensors import map_tensors
from ..steps import Sources, channels
from ..tracer import Rule, Tracer, rule
from ..values import CONSTANT, Value
from .handwritten_norms import normalised, statistic
from .open_layers import has_heads, opened, reduced
from .shapes import axis_of


def dimensions(dim: Any, rank: int) -> list[int]:
    """The dimensions of a reduction in ascending order; all if none are given."""
    given = (dim,) if isinstance(dim, int) else tuple(dim or ()) or range(rank)
    return sorted({axis_of(d, rank) for d in given})


@rule(torch.mean, Tensor.mean)
def mean(
    tracer: Tracer, input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None, **_: Any
) -> Tensor:
    """A mean over positions is a global average; a mean over features is folded away."""
    dims, rank = dimensions(dim, input.dim()), input.dim()
    shape = [1 if d in dims else size for d, size in enumerate(input.shape) if keepdim or d not in dims]
    value = tracer.value(input) or CONSTANT
    out = tracer.emit(shape, dtype or input.dtype, Value(_averaged(tracer, input, dims), value.params))
    if rank > 3 and len(shape) == 3 and min(dims) > 1:
        tracer.origin(out).channels_first = True
    return reduced(tracer, out, input, dims)


def _averaged(tracer: Tracer, x: Tensor, dims: Sequence[int]) -> Sources:
    sources, rank = tracer.sources(x), x.dim()
    if not sources:
        return sources
    is_average = _is_spatial(rank, dims) and not (
        rank == 3 and (tracer.known(x).channels_first or has_heads(tracer, x))
    )
    if not is_average and _ends_average(tracer, x, dims):  # one dimension after the other
        is_average, first = True, tracer.steps[sources[0]]
        sources = first.inputs if len(sources) == 1 and first.kind == "statistic" else sources
    return statistic(tracer, sources, rank, dims, kind="glob_avg" if is_average else "statistic")


def _is_spatial(rank: int, dims: Sequence[int]) -> bool:
    """Whether ``dims`` are the positions of (B, C, *positions), (B, *positions, C) or (B, tokens, C)."""
    channels_first, channels_last = list(range(2, rank)), list(range(1, rank - 1))
    return (rank > 3 and list(dims) in (channels_first, channels_last)) or (rank == 3 and list(dims) == [1])


def _ends_average(tracer: Tracer, x: Tensor, dims: Sequence[int]) -> bool:
    """Whether no positions of (B, C, *positions) are left after a mean over ``dims``."""
    if x.dim() == 3:
        maybe_channels = x.shape[1] == channels(tracer.steps, tracer.sources(x)) != x.shape[2]
        return list(dims) == [2] and (tracer.known(x).channels_first or maybe_channels)
    return x.dim() > 3 and min(dims) > 1 and all(x.shape[d] == 1 for d in range(2, x.dim()) if d not in dims)


def _deviation(function: Callable[..., Any], position: int) -> Rule:
    """A variance, standard deviation or length, whose dimensions are the argument at ``position``."""

    def deviation(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = function(tracer.lift(input), *args, **kwargs)
        dim = kwargs.get("dim", args[position] if len(args) > position else None)
        dims = dimensions(None if isinstance(dim, bool) else dim, input.dim())
        value = tracer.value(input) or CONSTANT
        value = Value(statistic(tracer, value.sources, input.dim(), dims), value.params)
        return map_tensors(lambda tensor: tracer.emit(tensor.shape, tensor.dtype, value), out)

    return deviation


for _function in functions("var std var_mean std_mean"):
    rule(_function)(_deviation(_function, 0))
for _function in functions("norm") | {torch.linalg.norm, torch.linalg.vector_norm}:
    rule(_function)(_deviation(_function, 1))


@rule(F.normalize)
def normalize(tracer: Tracer, input: Tensor, p: float = 2.0, dim: int = 1, *_: Any, **__: Any) -> Tensor:
    """A value over its own length."""
    value, rank = tracer.value(input) or CONSTANT, input.dim()
    length = statistic(tracer, value.sources, rank, dimensions(dim, rank))
    sources = normalised(tracer, value.sources, length) or value.sources
    return opened(tracer, tracer.emit(input.shape, input.dtype, Value(sources, value.params)))
