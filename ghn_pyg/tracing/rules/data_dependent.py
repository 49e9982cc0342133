"""Rules for choices that depend on the values of activations: how many elements they select is unknown.

The graph does not depend on it. A trace selects all elements, so that sizes fit, and none in a second try if the
forward pass looks at what was selected. Likewise conditions are true at first, and false in a second try.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..kept_reasons import Kept, enters
from ..tracer import Tracer, rule
from ..values import CONSTANT
from .elementwise import absorb


@rule(torch.nonzero, Tensor.nonzero, torch.argwhere, Tensor.argwhere)
def nonzero(tracer: Tracer, input: Tensor, as_tuple: bool = False) -> Any:
    """Indices of the elements that are not zero."""
    count, value = tracer.chosen(input.numel()), tracer.value(input) or CONSTANT
    if as_tuple:
        return tuple(tracer.emit((count,), torch.int64, value) for _ in range(max(input.dim(), 1)))
    indices = tracer.emit((count, input.dim()), torch.int64, value)
    if count == input.numel():
        tracer.origin(indices).all_of = tuple(input.shape)
    return indices


@rule(Tensor.unbind, torch.unbind)
def unbind(tracer: Tracer, input: Tensor, dim: int = 0) -> Any:
    """Slices; if they are the indices of all elements they have data, for loops over the experts that get tokens."""
    shape = tracer.origin(input).all_of
    if shape is None or dim != 0:
        return tracer.default(Tensor.unbind, (input, dim), {})
    value = tracer.value(input) or CONSTANT
    return tuple(tracer.remember(index, value) for index in torch.ones(shape, device="cpu").nonzero())


@rule(torch.where)
def where(tracer: Tracer, condition: Tensor, *others: Any, **named: Any) -> Any:
    """A choice between two values for each element; with one operand the indices that are not zero."""
    if not others and not named:
        return nonzero(tracer, condition, as_tuple=True)
    return tracer.default(torch.where, (condition, *others), named)


@rule(torch.masked_select, Tensor.masked_select)
def masked_select(tracer: Tracer, input: Tensor, mask: Tensor, **_: Any) -> Tensor:
    """The elements at which a mask is true."""
    shape = torch.broadcast_shapes(input.shape, mask.shape)
    count = tracer.chosen(shape.numel()) if tracer.is_abstract(mask) else int(mask.expand(shape).sum())
    return tracer.emit((count,), input.dtype, absorb(tracer, Kept.TOKEN, tracer.merged((input, mask))))


@rule("torchvision.nms")
def non_maximum_suppression(tracer: Tracer, boxes: Tensor, scores: Tensor, *_: Any) -> Tensor:
    """The indices of the boxes that no better one overlaps."""
    value = absorb(tracer, enters("a choice"), tracer.merged((boxes, scores)))
    return tracer.emit((tracer.chosen(boxes.shape[0]),), torch.int64, value)


@rule(Tensor.__bool__, Tensor.is_nonzero, torch.is_nonzero)
def condition(tracer: Tracer, input: Tensor) -> bool:
    """Whether a single value is true, such as whether an expert gets any token."""
    if input.numel() != 1:
        raise RuntimeError(f"a condition takes a single value, got a tensor of shape {tuple(input.shape)}")
    tracer.ask()
    return bool(tracer.chosen(1))


@rule(Tensor.item)
def item(tracer: Tracer, input: Tensor) -> Any:
    """A number is unknown, but a truth value is a condition."""
    return condition(tracer, input) if input.dtype == torch.bool else tracer.default(Tensor.item, (input,), {})
