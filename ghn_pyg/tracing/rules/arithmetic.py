"""Rules for arithmetic and joins: what connects the layers of a network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ...utils.nested_tensors import tensors_in
from ..kept import Kept, enters
from ..steps import Sources, union
from ..tracer import Rule, Tracer, rule
from ..values import CONSTANT, Value
from .handwritten_norms import centred, normalised, scaled
from .layers import offset, position_bias
from .learned_positions import position_tables, with_tokens

_UNARY: Final = """
    relu relu_ relu6 leaky_relu leaky_relu_ elu elu_ selu selu_ celu celu_ gelu silu mish hardtanh hardtanh_ hardswish
    hardsigmoid rrelu rrelu_ sigmoid_ tanh_ logsigmoid softplus softsign tanhshrink hardshrink softshrink
    threshold softmin dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout
    feature_alpha_dropout exp_ sqrt_ rsqrt_ square abs abs_ neg neg_ __neg__ __abs__ clamp clamp_ clamp_min clamp_max
    clip round floor ceil sign positive contiguous clone detach requires_grad_ nan_to_num local_response_norm flip roll
    tril triu silu_
"""
_FLOATING: Final = "sigmoid tanh exp log log1p sqrt rsqrt erf sin cos logit"
_MULTIPLY: Final = "mul multiply __mul__ __rmul__"
_ADD: Final = "add __add__ __radd__"
_SUBTRACT: Final = "sub subtract __sub__ __rsub__"
_DIVIDE: Final = "div divide true_divide __truediv__ __div__ atan2"
_COMBINE: Final = "pow __pow__ maximum minimum fmod remainder"
_SCORES: Final = frozenset(("product", "softmax"))
_NAMESPACES: Final = (torch, Tensor, F, torch.special)


def named(names: str) -> set[Callable[..., Any]]:
    """The functions and methods of these names."""
    operators = {getattr(Tensor, name) for name in names.split() if name.startswith("__") and hasattr(Tensor, name)}
    plain = [name for name in names.split() if not name.startswith("__")]
    return operators | {getattr(space, name) for name in plain for space in _NAMESPACES if hasattr(space, name)}


def broadcast(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """The shape that two shapes broadcast to."""
    if first == second:
        return tuple(first)
    rank = max(len(first), len(second))
    out = []
    for a, b in zip(
        (1,) * (rank - len(first)) + tuple(first), (1,) * (rank - len(second)) + tuple(second), strict=True
    ):
        if a != b and 1 not in (a, b):
            raise RuntimeError(f"shapes {tuple(first)} and {tuple(second)} do not fit together")
        out.append(b if a == 1 else a)
    return tuple(out)


@rule(*named(_UNARY))
def unary(tracer: Tracer, input: Tensor, *_: Any, **__: Any) -> Tensor:
    """Keeps shape and provenance."""
    return tracer.emit(input.shape, input.dtype, tracer.value(input) or CONSTANT)


@rule(*named(_FLOATING))
def floating(tracer: Tracer, input: Tensor, *_: Any, **__: Any) -> Tensor:
    """Keeps shape and provenance; integers become floating-point numbers."""
    return tracer.emit(input.shape, _float(input.dtype), tracer.value(input) or CONSTANT)


def _float(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.get_default_dtype()


def axis_of(dim: int, rank: int) -> int:
    """A dimension counted from the front."""
    if not -max(rank, 1) <= dim < max(rank, 1):
        raise IndexError(f"dimension {dim} is out of range for a tensor of {rank} dimensions")
    return dim % max(rank, 1)


def _result(tracer: Tracer, first: Any, second: Any, value: Value) -> Tensor:
    """A tensor of the shape and type that two operands give, of which one may be a number."""
    tensors = [operand for operand in (first, second) if isinstance(operand, Tensor)]
    if len(tensors) == 1:
        shape: Sequence[int] = tensors[0].shape
    else:
        shape = broadcast(first.shape, second.shape)
    same = len(tensors) == 2 and first.dtype == second.dtype
    return tracer.emit(shape, tensors[0].dtype if same else torch.result_type(first, second), value)


def absorb(tracer: Tracer, reason: str, value: Value) -> Value:
    """Once parameters meet activations in an operation without a node of its own they are out of reach."""
    return Value(tracer.fold(value.params, reason, value.sources)) if value.sources else value


@rule(*named(_COMBINE))
def combine(tracer: Tracer, input: Any, other: Any, *_: Any, **__: Any) -> Tensor:
    """An operation on two operands that is folded away."""
    return _combined(tracer, input, other, enters("an operation on two values"))


def _combined(tracer: Tracer, input: Any, other: Any, reason: str) -> Tensor:
    merged = tracer.merged(tensors_in((input, other)))
    return _result(tracer, input, other, absorb(tracer, reason, merged))


@rule(*named(_DIVIDE))
def divide(tracer: Tracer, input: Any, other: Any, *, rounding_mode: str | None = None, **_: Any) -> Tensor:
    """A quotient, of floating-point type unless it is rounded; folded away unless it is a norm's."""
    out = _combined(tracer, input, other, _scaling(tracer, input, other))
    if rounding_mode:
        return out
    norm = normalised(tracer, tracer.sources(input), tracer.sources(other))
    value = (tracer.value(out) or CONSTANT) if norm is None else Value(norm)
    return _opened(tracer, tracer.emit(out.shape, _float(out.dtype), value), norm)


def _opened(tracer: Tracer, out: Tensor, norm: Sources | None) -> Tensor:
    return out if norm is None else tracer.opened(out)


@rule(*named(_MULTIPLY))
def multiply(tracer: Tracer, input: Any, other: Any, **_: Any) -> Tensor:
    """A product of two values: perhaps a squeeze-and-excitation gate, or part of a norm."""
    merged = tracer.merged(tensors_in((input, other)))
    norm = _norm(tracer, input, other, merged)
    if norm is not None:
        return tracer.opened(_result(tracer, input, other, Value(norm)))
    if len(merged.sources) > 1:
        merged = Value(tracer.join("mul", tracer.entering((input, other))), merged.params)
    return _result(tracer, input, other, _scales(tracer, merged, _scaling(tracer, input, other)))


def _scaling(tracer: Tracer, input: Any, other: Any) -> Kept:
    """What a parameter is that multiplies an activation."""
    return Kept.LOGIT_SCALE if _scores(tracer, input) or _scores(tracer, other) else Kept.LAYER_SCALE


def _scores(tracer: Tracer, operand: Any) -> Sources:
    """The products of queries and keys that an operand is, or was before a bias was added."""
    sources = union(*(tracer.biased.get(step, (step,)) for step in tracer.sources(operand)))
    return tuple(step for step in sources if tracer.steps[step].kind in _SCORES)


def _scales(tracer: Tracer, value: Value, reason: str) -> Value:
    """Folds the parameters that scale activations.

    One of several dimensions may be a weight that activations modulate, so that the layer which follows can have it.
    """
    sources, weights = value.sources, []
    for name in value.params if sources else ():
        dimensions = sum(size > 1 for size in tracer.parameters[name].shape)
        why = reason if dimensions < 3 else enters("a product with activations")
        sources = tracer.fold((name,), why, sources)
        weights += [name] * (dimensions > 1)
    return Value(sources, tuple(weights)) if sources else value


def _norm(tracer: Tracer, input: Any, other: Any, merged: Value) -> Sources | None:
    """What a product is where it is part of a norm that is written out."""
    if merged.params and merged.sources:
        values, gain = (input, other) if tracer.sources(input) else (other, input)
        return scaled(tracer, tracer.sources(values), gain)
    if len(merged.sources) < 2:
        return None
    first, second = tracer.sources(input), tracer.sources(other)
    found = normalised(tracer, first, second)
    return normalised(tracer, second, first) if found is None else found


@rule(*named(_ADD))
def add(tracer: Tracer, input: Any, other: Any, **_: Any) -> Tensor:
    """A sum, or an offset by a constant."""
    value = added(tracer, input, other)
    out, number = _result(tracer, input, other, value), other if isinstance(input, Tensor) else input
    if value.params and not value.sources and not isinstance(number, Tensor):
        tracer.origin(out).added = number
    return out


@rule(*named(_SUBTRACT))
def subtract(tracer: Tracer, input: Any, other: Any, **options: Any) -> Tensor:
    """A difference, which is no gain of a norm."""
    out = add(tracer, input, other, **options)
    tracer.origin(out).added = None
    return out


def added(tracer: Tracer, input: Any, other: Any) -> Value:
    """Where a sum comes from."""
    merged = tracer.merged(tensors_in((input, other)))
    if not merged.sources:
        return merged
    bias = offset(tracer, input, other) or offset(tracer, other, input)
    if bias is not None:
        return Value(bias)
    if (
        not merged.params
        and len(merged.sources) > 1
        and (less := centred(tracer, tracer.sources(input), tracer.sources(other)))
    ):
        return Value(less)
    operands = tracer.entering((input, other))
    scores: Sources = ()
    for operand, partner in ((input, other), (other, input)):
        if not isinstance(operand, Tensor) or not isinstance(partner, Tensor):
            continue
        if found := _scores(tracer, partner):
            position_bias(tracer, operand, found)
            scores = union(scores, found)
        else:
            operands += [tracer.step("pos_enc", (), (table,)) for table in position_tables(tracer, operand, partner)]
    new = len(tracer.steps)
    sources = tracer.join("sum", operands)
    if scores and sources == (new,):
        tracer.biased[new] = scores
    return absorb(tracer, Kept.OFFSET, Value(sources, merged.params))


@rule(torch.addcmul, Tensor.addcmul)
def add_product(tracer: Tracer, input: Tensor, tensor1: Tensor, tensor2: Tensor, **_: Any) -> Tensor:
    """``x + a · b``."""
    return tracer.call(torch.add, input, tracer.call(torch.mul, tensor1, tensor2))


@rule(torch.addcdiv, Tensor.addcdiv)
def add_quotient(tracer: Tracer, input: Tensor, tensor1: Tensor, tensor2: Tensor, **_: Any) -> Tensor:
    """``x + a / b``."""
    return tracer.call(torch.add, input, tracer.call(torch.div, tensor1, tensor2))


@rule(torch.lerp, Tensor.lerp)
def interpolate(tracer: Tracer, input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """``(1 - w) x + w y``."""
    return tracer.call(torch.add, input, tracer.call(torch.mul, end, weight))


def _in_place(function: Callable[..., Value]) -> Callable[..., Tensor]:
    def apply(tracer: Tracer, input: Tensor, other: Any, **_: Any) -> Tensor:
        if isinstance(other, Tensor) and broadcast(input.shape, other.shape) != tuple(input.shape):
            raise RuntimeError(f"shape {tuple(other.shape)} cannot be written into shape {tuple(input.shape)}")
        if tracer.owns(input):  # the network's own memory stays as it is
            return input
        tracer.mark(input, function(tracer, input, other))
        return input

    return apply


rule(Tensor.add_, Tensor.__iadd__, Tensor.sub_, Tensor.__isub__)(_in_place(added))
rule(Tensor.mul_, Tensor.__imul__)(
    _in_place(lambda tracer, input, other: tracer.value(multiply(tracer, input, other)) or CONSTANT)
)


@rule(torch.cat, torch.concat, torch.concatenate)
def concatenate(tracer: Tracer, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Tensor:
    """A concatenation of different nodes."""
    shapes = [tuple(tensor.shape) for tensor in tensors if tuple(tensor.shape) != (0,)] or [(0,)]
    axis = axis_of(dim, len(shapes[0]))
    if len({(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}) > 1:
        raise RuntimeError(f"concatenation along dimension {dim} got tensors of shapes {shapes}")
    shape = list(shapes[0])
    shape[axis] = sum(other[axis] for other in shapes)
    return with_tokens(tracer, tracer.emit(shape, _common_type(tensors), _joined(tracer, tensors)), tensors, axis)


@rule(torch.stack)
def stack(tracer: Tracer, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Tensor:
    """A concatenation along a new dimension."""
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise RuntimeError(f"stack expected tensors of one shape, got {sorted(shapes)}")
    shape = list(tensors[0].shape)
    shape.insert(axis_of(dim, len(shape) + 1), len(tensors))
    return tracer.emit(shape, _common_type(tensors), _joined(tracer, tensors))


def _stacked(function: Callable[..., Tensor]) -> Rule:
    """Concatenation under another name."""

    def stacked(tracer: Tracer, tensors: Sequence[Tensor], **_: Any) -> Tensor:
        out = function([tracer.lift(tensor) for tensor in tensors])
        return tracer.emit(out.shape, out.dtype, _joined(tracer, tensors))

    return stacked


for _stack in (torch.hstack, torch.vstack, torch.dstack, torch.column_stack):
    rule(_stack)(_stacked(_stack))


def _common_type(tensors: Sequence[Tensor]) -> torch.dtype:
    types = {tensor.dtype for tensor in tensors}
    return functools.reduce(torch.promote_types, types)


def _joined(tracer: Tracer, tensors: Sequence[Tensor]) -> Value:
    sources = tracer.join("concat", [tracer.sources(tensor) for tensor in tensors])
    return absorb(tracer, Kept.TOKEN, Value(sources, tracer.merged(tensors).params))
