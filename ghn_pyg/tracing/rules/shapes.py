"""Rules for changes of shape and for parts of a tensor: all folded away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...utils.nested_tensors import map_tensors, tensors_in
from ..kept import enters
from ..tracer import Tracer, rule
from ..values import CONSTANT, Value
from .arithmetic import absorb, axis_of
from .layers import looked_up


@rule(Tensor.__getitem__)
def getitem(tracer: Tracer, input: Tensor, index: Any) -> Tensor:
    """Part of a tensor; a mask selects as many elements as it has where its values are known."""
    places = index if isinstance(index, tuple) else (index,)
    masks = [isinstance(place, Tensor) and place.dtype == torch.bool for place in places]
    if any(masks):
        known: list[Any] = []
        for place, mask in zip(places, masks, strict=True):
            known.extend(_places(tracer, place) if mask else (place,))
        index = tuple(known)
    result = tracer.lift(input)[map_tensors(tracer.lift, index)]
    if len(places) == 1 and isinstance(places[0], Tensor) and _is_table(tracer, input, places[0]):
        return tracer.emit(result.shape, result.dtype, Value(looked_up(tracer, places[0], input)))
    value = absorb(tracer, enters("indexing"), tracer.merged(tensors_in((input, index))))
    if any(isinstance(place, Tensor) for place in places):
        tracer.looked_up.update(name for name in value.params if tracer.parameters[name].dim() == 2)
    elif result.numel() == input.numel():  # only dimensions of size 1 come or go
        return tracer.view(input, result.shape)
    return tracer.tag(result, input, value)


def _is_table(tracer: Tracer, tensor: Tensor, ids: Tensor) -> bool:
    """Whether rows of a parameter are looked up by ids that the network is given."""
    ids_given = tracer.kinds(ids) == {"input"} and not ids.is_floating_point() and ids.dtype != torch.bool
    return ids_given and tensor.dim() == 2 and tracer.parameter(tensor) is not None


@rule(torch.index_select, Tensor.index_select)
def index_select(tracer: Tracer, input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Chosen places of one dimension."""
    return tracer.call(Tensor.__getitem__, input, (*(slice(None),) * axis_of(dim, input.dim()), index.view(-1)))


def _places(tracer: Tracer, mask: Tensor) -> tuple[Tensor, ...]:
    """Where a mask is true."""
    if not tracer.is_abstract(mask):
        return mask.nonzero(as_tuple=True)
    count, value = tracer.chosen(mask.numel()), tracer.value(mask) or CONSTANT
    return tuple(tracer.emit((count,), torch.int64, value) for _ in range(max(mask.dim(), 1)))


@rule(torch.flatten, Tensor.flatten)
def flatten(tracer: Tracer, input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Joins neighbouring dimensions."""
    shape = tuple(input.shape)
    start, end = axis_of(start_dim, len(shape)), axis_of(end_dim, len(shape))
    if start > end:
        raise RuntimeError(f"flatten got dimensions {start_dim} to {end_dim} for an input of shape {shape}")
    return _map(tracer, input, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


def _map(tracer: Tracer, input: Tensor, shape: Sequence[int]) -> Tensor:
    """A view that may join the dimensions of a map: then its channels come before its places still."""
    out = tracer.view(input, shape)
    if len(shape) == 3 and input.dim() > 3 and tuple(shape[:2]) == tuple(input.shape[:2]):
        tracer.origin(out).channels_first = True
    return out


@rule(Tensor.view, Tensor.reshape, torch.reshape)
def reshape(tracer: Tracer, input: Tensor, *sizes: Any, **kwargs: Any) -> Tensor:
    """Another shape for the same elements; ``view(dtype)`` reinterprets them."""
    wanted = kwargs.get("shape", kwargs.get("size", sizes[0] if len(sizes) == 1 else sizes))
    if isinstance(wanted, torch.dtype):
        return tracer.emit(input.shape, wanted, tracer.value(input) or CONSTANT)
    shape = [wanted] if isinstance(wanted, int) else list(wanted)
    count, known = input.numel(), math.prod(size for size in shape if size != -1)
    if -1 in shape and known:
        shape[shape.index(-1)] = count // known
    if math.prod(shape) != count:
        raise RuntimeError(f"shape {list(wanted)} is invalid for an input of shape {tuple(input.shape)}")
    return _map(tracer, input, shape)


@rule(Tensor.permute, torch.permute)
def permute(tracer: Tracer, input: Tensor, *dims: Any, **kwargs: Any) -> Tensor:
    """Dimensions in another order."""
    order = kwargs.get("dims", dims[0] if dims and not isinstance(dims[0], int) else dims)
    if sorted(dim % input.dim() for dim in order) != list(range(input.dim())):
        raise RuntimeError(f"permute got dimensions {tuple(order)} for an input of shape {tuple(input.shape)}")
    return tracer.view(input, [input.shape[dim] for dim in order])


@rule(Tensor.transpose, torch.transpose, torch.swapaxes, Tensor.swapaxes)
def transpose(tracer: Tracer, input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped."""
    shape = list(input.shape)
    shape[dim0], shape[dim1] = shape[dim1], shape[dim0]
    return tracer.view(input, shape)


@rule(Tensor.unsqueeze, torch.unsqueeze)
def unsqueeze(tracer: Tracer, input: Tensor, dim: int) -> Tensor:
    """A new dimension of size 1."""
    shape = list(input.shape)
    shape.insert(axis_of(dim, len(shape) + 1), 1)
    return tracer.view(input, shape)


@rule(Tensor.squeeze, torch.squeeze)
def squeeze(tracer: Tracer, input: Tensor, *dims: Any, **kwargs: Any) -> Tensor:
    """Without dimensions of size 1."""
    return tracer.view(input, tracer.lift(input).squeeze(*dims, **kwargs).shape)


@rule(Tensor.chunk, torch.chunk)
def chunk(tracer: Tracer, input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """About equal parts along a dimension."""
    return split(tracer, input, max(1, -(-input.shape[dim] // chunks)), dim)


@rule(Tensor.split, torch.split)
def split(tracer: Tracer, input: Tensor, split_size: Any = None, dim: int = 0, **kwargs: Any) -> tuple[Tensor, ...]:
    """Parts along a dimension."""
    size, wanted = input.shape[dim], kwargs.get("split_size_or_sections", split_size)
    parts = [min(wanted, size - at) for at in range(0, size, wanted)] if isinstance(wanted, int) else list(wanted)
    if sum(parts) != size:
        raise RuntimeError(f"split sizes {parts} do not add up to {size}")
    axis, shape = dim % input.dim(), tuple(input.shape)
    return tuple(tracer.view(input, (*shape[:axis], part, *shape[axis + 1 :])) for part in parts)
