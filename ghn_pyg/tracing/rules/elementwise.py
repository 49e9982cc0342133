"""Rules for elementwise functions: activation functions, and products, quotients and powers of two values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from ...utils.compat import functions
from ...utils.nested_tensors import tensors_in
from ..kept_reasons import Kept, enters
from ..steps import Sources, union
from ..tracer import Rule, Tracer, rule
from ..values import CONSTANT, Value
from .handwritten_norms import normalised, over_deviation, scaled
from .open_layers import carry, multiplied, open_in, opened

_UNARY: Final = """
    relu relu_ relu6 leaky_relu leaky_relu_ elu elu_ selu selu_ celu celu_ gelu silu mish hardtanh hardtanh_ hardswish
    hardsigmoid rrelu rrelu_ sigmoid_ tanh_ logsigmoid softplus softsign tanhshrink hardshrink softshrink
    threshold softmin log_softmax alpha_dropout feature_alpha_dropout exp_ sqrt_ rsqrt_ square abs abs_ __abs__ clamp
    clamp_ clamp_min clamp_max clip round floor ceil sign positive nan_to_num local_response_norm flip tril triu
    silu_
"""
_LINEAR: Final = """
    contiguous clone requires_grad_ roll neg neg_ __neg__ dropout dropout_ dropout1d dropout2d dropout3d
"""

# Shapes are computed by hand: meta kernels of elementwise functions take 0.2 to 0.8 ms, the rules 0.01 ms. Those of the
# activation functions and sums alone would double the time that tracing a ResNet-50 takes.
_broadcast: Final = functools.lru_cache(torch.broadcast_shapes)


@rule(*functions(_UNARY))
def unary(tracer: Tracer, input: Tensor, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    """Keeps the shape, and where its input comes from."""
    return tracer.emit(input.shape, dtype or input.dtype, tracer.value(input) or CONSTANT)


@rule(*functions(_LINEAR))
def linear_unary(tracer: Tracer, input: Tensor, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    """The same; a layer's bias may come later."""
    return carry(tracer, unary(tracer, input, dtype=dtype), open_in(tracer, input), input.shape)


@rule(*functions("sigmoid tanh exp log log1p sqrt rsqrt erf sin cos logit dequantize"))
def floating(tracer: Tracer, input: Tensor, *_: Any, **__: Any) -> Tensor:
    """The same; integers become floating-point numbers."""
    return tracer.emit(input.shape, _float(input.dtype), tracer.value(input) or CONSTANT)


def _float(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.get_default_dtype()


def binary(tracer: Tracer, first: Any, second: Any, value: Value) -> Tensor:
    """A tensor of the shape and type that two operands broadcast to; one of them may be a number."""
    tensors = [operand for operand in (first, second) if isinstance(operand, Tensor)]
    shapes = {tensor.shape for tensor in tensors}
    shape = shapes.pop() if len(shapes) == 1 else _broadcast(*shapes)
    same = len(tensors) == 2 and first.dtype == second.dtype
    return tracer.emit(shape, first.dtype if same else torch.result_type(first, second), value)


def absorb(tracer: Tracer, reason: str, value: Value) -> Value:
    """Keeps the parameters that meet activations in an operation without a node of its own."""
    return Value(tracer.fold(value.params, reason, value.sources)) if value.sources else value


@rule(*functions("pow __pow__ maximum minimum fmod remainder"))
def combine(tracer: Tracer, input: Any, other: Any, *_: Any, **__: Any) -> Tensor:
    """An operation on two values that is folded away; a vector of parameters is an exponent or a threshold."""
    shapes = (tracer.parameters[name].shape for name in tracer.merged(tensors_in((input, other))).params)
    vectors = all(shape.numel() == max(shape, default=1) for shape in shapes)
    return _combined(tracer, input, other, Kept.SLOPE if vectors else enters("an operation on two values"))


def _extreme(function: Callable[..., Any], of_two: Callable[..., Tensor]) -> Rule:
    """``torch.max`` or ``torch.min``: of two tensors, or along a dimension."""

    def extreme(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        other = args[0] if args else kwargs.get("other")
        if isinstance(other, Tensor):
            return tracer.call(of_two, input, other)
        return tracer.default(function, (input, *args), kwargs)

    return extreme


for _name, _of_two in (("max", torch.maximum), ("min", torch.minimum)):
    for _function in functions(_name):
        rule(_function)(_extreme(_function, _of_two))


def _combined(tracer: Tracer, input: Any, other: Any, reason: str) -> Tensor:
    return binary(tracer, input, other, absorb(tracer, reason, tracer.merged(tensors_in((input, other)))))


@rule(*functions("div divide true_divide __truediv__ __div__ atan2"))
def divide(tracer: Tracer, input: Any, other: Any, *, rounding_mode: str | None = None, **_: Any) -> Tensor:
    """A quotient, which is floating-point unless it is rounded; folded away unless it is part of a norm."""
    quotient = _combined(tracer, input, other, _factor(tracer, input, other))
    if rounding_mode:
        return quotient
    norm = normalised(tracer, tracer.sources(input), tracer.sources(other))
    if norm is None:
        norm = over_deviation(tracer, tracer.sources(input), other)
    value = tracer.value(quotient) or CONSTANT if norm is None else Value(norm)
    out = tracer.emit(quotient.shape, _float(quotient.dtype), value)
    if norm is None:
        return carry(tracer, out, multiplied(tracer, input, other), quotient.shape)
    return opened(tracer, out)


@rule(*functions("mul multiply __mul__ __rmul__"))
def multiply(tracer: Tracer, input: Any, other: Any, **_: Any) -> Tensor:
    """A product of two values: perhaps a squeeze-and-excitation gate, or part of a norm."""
    merged = tracer.merged(tensors_in((input, other)))
    norm = _norm(tracer, input, other, merged)
    if norm is not None:
        out = opened(tracer, binary(tracer, input, other, Value(norm)))
        tracer.origin(out).factors = (input, other)
        return out
    if len(merged.sources) > 1:
        merged = Value(tracer.join("mul", tracer.entering((input, other))), merged.params)
    out = binary(tracer, input, other, _keep_factors(tracer, merged, _factor(tracer, input, other)))
    if merged.params and isinstance(input, Tensor) and isinstance(other, Tensor):
        tracer.origin(out).factors = (input, other)
    return carry(tracer, out, multiplied(tracer, input, other) or multiplied(tracer, other, input), out.shape)


def _factor(tracer: Tracer, input: Any, other: Any) -> Kept:
    """What a parameter is that multiplies an activation."""
    return Kept.LOGIT_SCALE if scores(tracer, input) or scores(tracer, other) else Kept.LAYER_SCALE


def scores(tracer: Tracer, operand: Any) -> Sources:
    """The products of queries and keys that an operand is, or was before a bias was added."""
    sources = union(*(tracer.biased.get(step, (step,)) for step in tracer.sources(operand)))
    return tuple(step for step in sources if tracer.steps[step].kind in ("product", "softmax"))


def _keep_factors(tracer: Tracer, value: Value, reason: str) -> Value:
    """Keeps the parameters that scale activations.

    One with several dimensions may be a weight that activations modulate, so the next layer can still use it.
    """
    sources, weights = value.sources, []
    for name in value.params if sources else ():
        dimensions = sum(size > 1 for size in tracer.parameters[name].shape)
        sources = tracer.fold((name,), reason if dimensions < 3 else enters("a product with activations"), sources)
        weights += [name] * (dimensions > 1)
    return Value(sources, tuple(weights)) if sources else value


def _take_back_gains(tracer: Tracer, names: Sequence[str]) -> None:
    """Keeps the parameters among these that the product before took for the gain of a norm."""
    for name in names:
        if tracer.steps[tracer.claimed.get(name, 0)].kind in ("ln", "bn"):
            tracer.keep(name, Kept.LAYER_SCALE)


def _norm(tracer: Tracer, input: Any, other: Any, merged: Value) -> Sources | None:
    """What a product is if it is part of a norm that is written out."""
    first, second = tracer.sources(input), tracer.sources(other)
    if merged.params and merged.sources:
        value, gain = (input, other) if first else (other, input)
        if isinstance(gain, Tensor) and tracer.origin(gain).added is None:  # (1 - w) x + w y, in which w is no gain
            _take_back_gains(tracer, merged.params)
            return None
        if tracer.kinds(value) == {"normalised"} and open_in(tracer, value) is None:  # an activation function follows
            return None
        base = tracer.known(value).base
        return scaled(tracer, first or second, gain, base is not None and base.shape != value.shape)
    if len(merged.sources) < 2:
        return over_deviation(tracer, first or second, other if first else input)
    norm = normalised(tracer, first, second)
    return normalised(tracer, second, first) if norm is None else norm
