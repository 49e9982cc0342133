"""Rules for sums and concatenations: what joins the branches of a network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...utils.compat import functions
from ...utils.nested_tensors import tensors_in
from ..kept_reasons import Kept
from ..steps import Sources, union
from ..tracer import Rule, Tracer, rule
from ..values import CONSTANT, Value
from .attention import position_bias
from .elementwise import absorb, binary, multiply, scores
from .handwritten_norms import centred, shifted
from .layer_steps import offset
from .learned_positions import position_tables, with_tokens
from .open_layers import Open, carry, constant_layer, joined, multiplied, opened, summed
from .shapes import axis_of


@rule(*functions("add __add__ __radd__"))
def add(tracer: Tracer, input: Any, other: Any, **_: Any) -> Tensor:
    """A sum, or an offset by a constant."""
    found, value = summed(tracer, input, other), added(tracer, input, other)
    out, number = binary(tracer, input, other, value), other if isinstance(input, Tensor) else input
    if value.params and not value.sources and not isinstance(number, Tensor):
        tracer.origin(out).added = number
    return opened(tracer, out) if tracer.kinds(out) == {"bias"} else carry(tracer, out, found, out.shape)


@rule(*functions("sub subtract __sub__ __rsub__"))
def subtract(tracer: Tracer, input: Any, other: Any, **options: Any) -> Tensor:
    """A difference, which is not the gain of a norm; less a constant mean it may be part of one."""
    out = add(tracer, input, other, **options)
    if (less_mean := shifted(tracer, out, other)) is not None:
        out = tracer.like(out, less_mean)
    tracer.origin(out).added = None
    return out


def added(tracer: Tracer, input: Any, other: Any) -> Value:
    """Where a sum comes from: a layer's bias, part of a norm, scores of attention with a bias, or a node."""
    merged = tracer.merged(tensors_in((input, other)))
    if not merged.sources:
        return merged
    bias = offset(tracer, input, other) or offset(tracer, other, input)
    if bias is not None:
        return Value(bias)
    if not merged.params and len(merged.sources) > 1:
        difference = centred(tracer, tracer.sources(input), tracer.sources(other))
        if difference is not None:
            return Value(difference)
    operands = tracer.entering((input, other))
    biased: Sources = ()
    for operand, partner in ((input, other), (other, input)):
        of_partner = scores(tracer, partner)
        if of_partner and isinstance(operand, Tensor):
            position_bias(tracer, operand, of_partner)
            biased = union(biased, of_partner)
        elif tables := position_tables(tracer, operand, partner):
            operands += [tracer.step("pos_enc", (), (table,)) for table in tables]
        elif (layer := constant_layer(tracer, operand, partner)) is not None:
            operands.append(layer)
    new, sources = len(tracer.steps), tracer.join("sum", operands)
    if biased and sources == (new,):
        tracer.biased[new] = biased
    return absorb(tracer, Kept.OFFSET, Value(sources, merged.params))


def _add_result_of(function: Callable[..., Tensor]) -> Rule:
    """``x + f(a, b)``."""

    def add_result(tracer: Tracer, input: Tensor, *operands: Any, value: float = 1, **named: Any) -> Any:
        further = [named[name] for name in sorted(named)]  # tensor1 and tensor2, or end and weight
        return tracer.call(torch.add, input, tracer.call(function, *operands, *further))

    return add_result


rule(torch.addcmul, Tensor.addcmul)(_add_result_of(torch.mul))
rule(torch.addcdiv, Tensor.addcdiv)(_add_result_of(torch.div))


@rule(torch.lerp, Tensor.lerp)
def interpolate(tracer: Tracer, input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """``(1 - w) x + w y``, in which a parameter ``w`` is no gain of a norm."""
    closed = tracer.emit(end.shape, end.dtype, tracer.value(end) or CONSTANT)
    result: Tensor = tracer.call(torch.add, input, tracer.call(torch.mul, closed, weight))
    return result


def _in_place(function: Callable[..., Value], left_open: Callable[..., Open | None]) -> Rule:
    def apply(tracer: Tracer, input: Tensor, other: Any, **_: Any) -> Tensor:
        if not tracer.is_weight(input):  # the network's own weights stay as they are
            found = left_open(tracer, input, other)
            tracer.mark(input, function(tracer, input, other))
            carry(tracer, input, found, input.shape)
        return input

    return apply


rule(Tensor.add_, Tensor.__iadd__, Tensor.sub_, Tensor.__isub__)(_in_place(added, summed))
rule(Tensor.mul_, Tensor.__imul__)(
    _in_place(lambda tracer, input, other: tracer.value(multiply(tracer, input, other)) or CONSTANT, multiplied)
)


@rule(torch.cat, torch.concat, torch.concatenate)
def concatenate(tracer: Tracer, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Tensor:
    """A concatenation of different nodes."""
    # The shape is computed by hand: meta kernels would add a quarter to the time that tracing a DenseNet-121 takes.
    shapes = [tuple(tensor.shape) for tensor in tensors if tuple(tensor.shape) != (0,)] or [(0,)]
    axis = axis_of(dim, len(shapes[0]))
    if len({(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}) > 1:
        raise RuntimeError(f"concatenation along dimension {dim} got tensors of shapes {shapes}")
    shape = list(shapes[0])
    shape[axis] = sum(other[axis] for other in shapes)
    dtype = functools.reduce(torch.promote_types, {tensor.dtype for tensor in tensors})
    out = with_tokens(tracer, tracer.emit(shape, dtype, _joined(tracer, tensors)), tensors, axis)
    return joined(tracer, out, tensors) if axis == len(shape) - 1 else out


def _stack(function: Callable[..., Tensor]) -> Rule:
    """A concatenation along a new dimension, or under another name."""

    def stack(tracer: Tracer, tensors: Sequence[Tensor], *args: Any, **options: Any) -> Tensor:
        out = function([tracer.lift(tensor) for tensor in tensors], *args, **options)
        return joined(tracer, tracer.emit(out.shape, out.dtype, _joined(tracer, tensors)), tensors)

    return stack


for _function in (torch.stack, torch.hstack, torch.vstack, torch.dstack, torch.column_stack):
    rule(_function)(_stack(_function))


def _joined(tracer: Tracer, tensors: Sequence[Tensor]) -> Value:
    sources = tracer.join("concat", [tracer.sources(tensor) for tensor in tensors])
    return absorb(tracer, Kept.TOKEN, Value(sources, tracer.merged(tensors).params))
