"""Rules for choices that depend on the values of activations: how many elements they select is unknown.

The graph does not depend on it. A trace selects all elements, so that sizes fit, and none in a second try if the
forward pass looks at what was selected. Conditions are answered as the trace assumes (``assumptions.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...utils.compat import functions
from ...utils.nested_tensors import map_tensors, tensors_in
from ..assumptions import INTEGERS
from ..kept_reasons import Kept, enters
from ..tracer import Rule, Tracer, rule
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
    shape = tracer.known(input).all_of
    if shape is None or dim != 0:
        return tracer.default(Tensor.unbind, (input, dim), {})
    value = tracer.value(input) or CONSTANT
    return tuple(tracer.remember(index, value) for index in torch.ones(shape, device="cpu").nonzero())


@rule(torch.where)
def where(tracer: Tracer, condition: Tensor, *others: Any, **named: Any) -> Any:
    """A choice between two values for each element; with one operand the indices that are not zero."""
    if not others and not named:
        return nonzero(tracer, condition, as_tuple=True)
    chosen = tracer.merged(tensors_in((others, named)))
    if len(chosen.sources) == 1 and not chosen.params:
        step = tracer.steps[chosen.sources[0]]
        if step.kind == "softmax" and set(tracer.sources(condition)) <= set(step.inputs):  # rows that are masked
            out = tracer.shaped(torch.where, (condition, *others), named)
            return tracer.emit(out.shape, out.dtype, chosen)
    return tracer.default(torch.where, (condition, *others), named)


@rule(torch.masked_select, Tensor.masked_select)
def masked_select(tracer: Tracer, input: Tensor, mask: Tensor, **_: Any) -> Tensor:
    """The elements at which a mask is true."""
    shape = torch.broadcast_shapes(input.shape, mask.shape)
    count = tracer.chosen(shape.numel()) if tracer.is_abstract(mask) else int(mask.expand(shape).sum())
    return tracer.emit((count,), input.dtype, absorb(tracer, Kept.TOKEN, tracer.merged((input, mask))))


@rule("torchvision.nms")
def non_maximum_suppression(tracer: Tracer, boxes: Tensor, scores: Tensor, *_: Any) -> Tensor:
    """The indices of the boxes that no better one overlaps: two, as a loop may run for each of them."""
    value = absorb(tracer, enters("a choice"), tracer.merged((boxes, scores)))
    return tracer.emit((tracer.chosen(min(boxes.shape[0], 2)),), torch.int64, value)


@rule(Tensor.__bool__, Tensor.is_nonzero, torch.is_nonzero)
def condition(tracer: Tracer, input: Tensor) -> bool:
    """Whether a single value is true, such as whether an expert gets any token."""
    if input.numel() != 1:
        raise RuntimeError(f"a condition takes a single value, got a tensor of shape {tuple(input.shape)}")
    return tracer.holds()


def _number(function: Callable[..., Any]) -> Rule:
    def number(tracer: Tracer, input: Tensor) -> Any:
        """A parameter has a value. A truth value is a condition, and a fraction is unknown until it is compared."""
        if tracer.own_name(input) is not None and not input.is_meta:
            tracer.value(input)  # notes that the parameter is used
            return function(input.detach())
        if input.numel() == 1 and input.dtype == torch.bool:
            return function(torch.tensor(condition(tracer, input)))
        if input.numel() == 1 and input.is_floating_point() and function is Tensor.item:
            return UnknownNumber(tracer)
        if input.numel() == 1 and input.is_floating_point() and function is Tensor.__float__:
            tracer.draw()  # must return a float
            return tracer.assumed.drawn
        return _read(function)(tracer, input)

    return number


def _read(function: Callable[..., Any]) -> Rule:
    def read(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Values outside of tensors: random fractions, all 1 or all 0, and integers as the trace assumes."""
        if (integers := tracer.assumed.integers) is None:
            return tracer.default(function, (input, *args), kwargs)
        if input.is_floating_point() or input.is_complex():
            tracer.draw()
            values = tracer.stand_in(input).real.clamp(2 * tracer.assumed.drawn - 1, 2 * tracer.assumed.drawn)
        else:
            values = INTEGERS[integers](input.shape)
        return function(values.to(input.dtype, copy=True), *args, **kwargs)

    return read


for _array in (Tensor.numpy, Tensor.__array__):
    rule(_array)(_read(_array))
for _function in (Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__int__, Tensor.__index__):
    rule(_function)(_number(_function))


class UnknownNumber(float):
    """A number that depends on activations: comparisons are conditions, and what is computed from it is unknown too."""

    def __new__(cls, _: Tracer) -> UnknownNumber:
        """Any number."""
        return super().__new__(cls, 1.0)

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def _compared(self, _: Any) -> bool:
        return self.tracer.holds()

    def _computed(self, *_: Any) -> UnknownNumber:
        return UnknownNumber(self.tracer)

    __neg__ = __abs__ = __add__ = __radd__ = __sub__ = __rsub__ = _computed
    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _computed
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _compared
    __hash__ = float.__hash__


@rule(Tensor.__format__)
def formatted(tracer: Tracer, input: Tensor, form: str) -> str:
    """The text of any number, as it is of no use to the network."""
    return format(torch.zeros(input.shape, dtype=input.dtype, device="cpu"), form)


@rule(torch.equal, Tensor.equal, torch.allclose, Tensor.allclose)
def compared(tracer: Tracer, input: Tensor, other: Tensor, *_: Any, **__: Any) -> bool:
    """Whether two tensors are equal."""
    return tracer.holds()


def _distinct(function: Callable[..., Any]) -> Rule:
    """The distinct elements: one, as a loop may run for each of them; further results have the shape of the input."""

    def distinct(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        result = function(torch.zeros(input.shape, dtype=input.dtype, device="cpu"), *args, **kwargs)
        tracer.chosen(1)
        value = tracer.value(input) or CONSTANT
        return map_tensors(lambda tensor: tracer.emit(tensor.shape, tensor.dtype, value), result)

    return distinct


for _function in functions("unique unique_consecutive"):
    rule(_function)(_distinct(_function))


@rule(torch.bincount, Tensor.bincount)
def bincount(tracer: Tracer, input: Tensor, weights: Any = None, minlength: int = 0) -> Tensor:
    """How often each integer occurs: of those below ``minlength``, or of as many as there are elements."""
    value = tracer.merged(tensors_in((input, weights)))
    return tracer.emit((minlength or input.numel(),), torch.int64 if weights is None else weights.dtype, value)
