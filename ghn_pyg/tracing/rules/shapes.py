"""Rules for changes of shape and for parts of a tensor: all folded away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...utils.compat import INDEX_SELECT, functions
from ...utils.nested_tensors import map_tensors, tensors_in
from ..kept_reasons import enters
from ..tracer import Rule, Tracer, rule
from ..values import CONSTANT, Value
from .data_dependent import nonzero
from .elementwise import absorb
from .embedding import looked_up
from .open_layers import carry, has_heads, open_in


def axis_of(dim: int, rank: int) -> int:
    """A dimension counted from the front."""
    if not -max(rank, 1) <= dim < max(rank, 1):
        raise IndexError(f"dimension {dim} is out of range for a tensor of {rank} dimensions")
    return dim % max(rank, 1)


@rule(Tensor.__getitem__)
def getitem(tracer: Tracer, input: Tensor, index: Any) -> Tensor:
    """Part of a tensor; a mask with data selects as many elements as are true."""
    indices = index if isinstance(index, tuple) else (index,)
    if any(_is_mask(at) for at in indices):
        index = tuple(part for at in indices for part in (_true_at(tracer, at) if _is_mask(at) else (at,)))
    result = tracer.lift(input)[map_tensors(tracer.lift, index)]
    if _are_rows(indices) and _is_table(tracer, input, indices[0]):
        return tracer.emit(result.shape, result.dtype, Value(looked_up(tracer, indices[0], input)))
    value = absorb(tracer, enters("indexing"), tracer.merged(tensors_in((input, index))))
    if not tracer.is_abstract(input) and input.numel() and (input == (first := input.flatten()[0])).all():
        return tracer.remember(first.expand(result.shape).clone(), value)  # the same for all indices
    if any(isinstance(at, Tensor) for at in indices):
        tracer.looked_up.update(name for name in value.params if tracer.parameters[name].dim() == 2)
    elif result.numel() == input.numel():  # only dimensions of size 1 come or go
        return tracer.view(input, result.shape)
    return carry(tracer, tracer.tag(result, input, value), open_in(tracer, input), input.shape)


def _are_rows(indices: Sequence[Any]) -> bool:
    """Whether an index chooses whole rows."""
    first, *others = indices
    return isinstance(first, Tensor) and all(
        at is ... or (isinstance(at, slice) and at == slice(None)) for at in others
    )


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def _true_at(tracer: Tracer, mask: Tensor) -> Any:
    return nonzero(tracer, mask, as_tuple=True) if tracer.is_abstract(mask) else mask.nonzero(as_tuple=True)


def _is_table(tracer: Tracer, tensor: Tensor, ids: Tensor) -> bool:
    """Whether rows of a parameter are looked up by ids that are an input of the network."""
    are_ids = tracer.kinds(ids) == {"input"} and not ids.is_floating_point() and ids.dtype != torch.bool
    return are_ids and tensor.dim() == 2 and tracer.parameter(tensor) is not None


@rule(*functions("index_select"), *INDEX_SELECT)
def index_select(tracer: Tracer, input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Chosen indices of one dimension."""
    return tracer.call(Tensor.__getitem__, input, (*(slice(None),) * axis_of(dim, input.dim()), index.view(-1)))


@rule(*functions("gather"))
def gather(tracer: Tracer, input: Tensor, dim: int, index: Tensor, **_: Any) -> Tensor:
    """An element for each index; with the same index for all columns of a table it is a row."""
    return _along(tracer, tracer.default(torch.gather, (input, dim, index), {}), input, dim, index)


@rule(*functions("take_along_dim"))
def take_along_dim(tracer: Tracer, input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """The same; indices are repeated along the other dimensions."""
    args = (input, indices) if dim is None else (input, indices, dim)
    return _along(tracer, tracer.default(torch.take_along_dim, args, {}), input, dim, indices)


def _along(tracer: Tracer, out: Tensor, input: Tensor, dim: int | None, index: Tensor) -> Tensor:
    if dim in (0, -input.dim()) and _is_table(tracer, input, index):
        return tracer.emit(out.shape, out.dtype, Value(looked_up(tracer, index, input)))
    return carry(tracer, out, open_in(tracer, input), input.shape)


def _view(tracer: Tracer, input: Tensor, shape: Sequence[int]) -> Tensor:
    """A view that may flatten the positions of a map, whose channels still come first, or join heads of attention."""
    out = tracer.view(input, shape)
    if len(shape) == 3 and input.dim() > 3 and tuple(shape[:2]) == tuple(input.shape[:2]):
        heads = has_heads(tracer, input) or not tracer.kinds(input).isdisjoint(("msa", "product"))
        tracer.origin(out).channels_first = not heads
    return out


def _reshaping(function: Callable[..., Any], view: Callable[[Tracer, Tensor, Sequence[int]], Tensor]) -> Rule:
    """A function that gives one or several views."""

    def reshaped(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        result = function(tracer.lift(input), *args, **kwargs)
        if isinstance(result, Tensor) and result.dtype != input.dtype:  # view(dtype) reinterprets the elements
            return tracer.emit(result.shape, result.dtype, tracer.value(input) or CONSTANT)
        return map_tensors(lambda part: view(tracer, input, part.shape), result)

    return reshaped


for _function in functions("flatten view reshape"):
    rule(_function)(_reshaping(_function, _view))
rule(*functions("detach"))(_reshaping(torch.detach, Tracer.view))
for _function in functions("permute transpose unsqueeze squeeze chunk split movedim unflatten"):
    rule(_function)(_reshaping(_function, Tracer.view))
rule(*functions("swapaxes"))(_reshaping(torch.transpose, Tracer.view))  # with the names of its arguments
