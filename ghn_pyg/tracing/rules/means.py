"""Rules for means and other statistics: global averages, and parts of norms that are written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ...utils.nested_tensors import map_tensors
from ..steps import Sources, channels
from ..tracer import Rule, Tracer, rule
from ..values import CONSTANT, Value
from .arithmetic import axis_of
from .handwritten_norms import over_length, statistic


@rule(torch.mean, Tensor.mean)
def mean(
    tracer: Tracer, input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None, **_: Any
) -> Tensor:
    """A mean over the spatial dimensions is a global average; a mean over features is folded away."""
    rank = input.dim()
    given = (dim,) if isinstance(dim, int) else tuple(range(rank)) if dim is None or len(dim) == 0 else tuple(dim)
    if any(not -rank <= d < max(rank, 1) for d in given) or len({d % max(rank, 1) for d in given}) < len(given):
        raise IndexError(f"mean got dimensions {given} for an input of shape {tuple(input.shape)}")
    dims = sorted(d % rank for d in given)
    shape = [1 if d in dims else size for d, size in enumerate(input.shape) if keepdim or d not in dims]
    value = tracer.value(input) or CONSTANT
    out = tracer.emit(shape, dtype or input.dtype, Value(_averaged(tracer, input, dims), value.params))
    if rank > 3 and len(shape) == 3 and min(dims) > 1:
        tracer.origin(out).channels_first = True
    return out


def _averaged(tracer: Tracer, x: Tensor, dims: Sequence[int]) -> Sources:
    sources, rank = tracer.sources(x), x.dim()
    if not sources:
        return sources
    if is_spatial(rank, dims) and not (rank == 3 and tracer.origin(x).channels_first):
        return statistic(tracer, sources, rank, dims, kind="glob_avg")
    if _ends_average(tracer, x, dims):  # one dimension after the other
        first = tracer.steps[sources[0]]
        sources = first.inputs if len(sources) == 1 and first.kind == "statistic" else sources
        return statistic(tracer, sources, rank, dims, kind="glob_avg")
    return statistic(tracer, sources, rank, dims)


def is_spatial(rank: int, dims: Sequence[int]) -> bool:
    """Whether ``dims`` are the positions of (B, C, *positions), (B, *positions, C) or (B, tokens, C)."""
    channels_first, channels_last = list(range(2, rank)), list(range(1, rank - 1))
    return (rank > 3 and list(dims) in (channels_first, channels_last)) or (rank == 3 and list(dims) == [1])


def _ends_average(tracer: Tracer, x: Tensor, dims: Sequence[int]) -> bool:
    """Whether no positions of (B, C, *positions) are left after a mean over ``dims``."""
    if x.dim() == 3:
        return list(dims) == [2] and (tracer.origin(x).channels_first or _channels(tracer, x) == x.shape[1])
    return x.dim() > 3 and min(dims) > 1 and all(x.shape[d] == 1 for d in range(2, x.dim()) if d not in dims)


def _channels(tracer: Tracer, x: Tensor) -> int:
    """Channels of the layer or norm that ``x`` comes from, unless its last dimension has as many."""
    found = channels(tracer.steps, tracer.sources(x))
    return 0 if found == x.shape[-1] else found


def _spread(function: Callable[..., Any], position: int) -> Rule:
    """A variance, deviation or length, whose dimensions are the argument at ``position``."""

    def spread(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = function(tracer.lift(input), *args, **kwargs)
        given = kwargs.get("dim", args[position] if len(args) > position else None)
        dims = (given,) if isinstance(given, int) and not isinstance(given, bool) else given
        rank = input.dim()
        dims = sorted(d % rank for d in dims) if isinstance(dims, (tuple, list)) and len(dims) else list(range(rank))
        value = tracer.value(input) or CONSTANT
        value = Value(statistic(tracer, value.sources, rank, dims), value.params)
        return map_tensors(lambda tensor: tracer.emit(tensor.shape, tensor.dtype, value), out)

    return spread


_SPREADS: Final[dict[int, tuple[Callable[..., Any], ...]]] = {
    0: (torch.var, Tensor.var, torch.std, Tensor.std, torch.var_mean, torch.std_mean),
    1: (torch.norm, Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm),
}
for _position, _functions in _SPREADS.items():
    for _function in _functions:
        rule(_function)(_spread(_function, _position))


@rule(F.normalize)
def normalize(tracer: Tracer, input: Tensor, p: float = 2.0, dim: int = 1, *_: Any, **__: Any) -> Tensor:
    """A value over its own length."""
    value = tracer.value(input) or CONSTANT
    axis_of(dim, input.dim())
    sources = over_length(tracer, value.sources, input.dim(), dim)
    return tracer.emit(input.shape, input.dtype, Value(sources, value.params))
