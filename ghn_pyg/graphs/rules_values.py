"""Rules for arithmetic, joins, products and changes of shape: what connects the layers of a network."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from .rules_layers import matrix_product, position_step
from .steps import Sources, union
from .tracer import CONSTANT, Rule, Tracer, Value, map_tensors, rule, tensors_in

_UNARY: Final = """
    relu relu_ relu6 leaky_relu leaky_relu_ elu elu_ selu selu_ celu celu_ gelu silu mish hardtanh hardtanh_ hardswish
    hardsigmoid rrelu rrelu_ sigmoid_ tanh_ logsigmoid softplus softsign tanhshrink hardshrink softshrink
    threshold softmin normalize dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout
    feature_alpha_dropout exp_ sqrt_ rsqrt_ square abs abs_ neg neg_ __neg__ __abs__ clamp clamp_ clamp_min clamp_max
    clip round floor ceil sign positive contiguous clone detach requires_grad_ nan_to_num local_response_norm flip roll
    tril triu silu_
"""
_FLOATING: Final = "sigmoid tanh exp log log1p sqrt rsqrt erf sin cos logit"
_MULTIPLY: Final = "mul multiply __mul__ __rmul__"
_ADD: Final = "add __add__ __radd__ sub subtract __sub__ __rsub__"
_DIVIDE: Final = "div divide true_divide __truediv__ __div__ atan2"
_COMBINE: Final = "pow __pow__ maximum minimum fmod remainder"
_CONSTANTS: Final = """
    zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_empty new_full
    new_tensor
"""
_NAMESPACES: Final = (torch, Tensor, F, torch.special)


def _named(names: str) -> set[Callable[..., Any]]:
    """The functions and methods of these names."""
    return {getattr(space, name) for name in names.split() for space in _NAMESPACES if hasattr(space, name)}


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


@rule(*_named(_UNARY))
def unary(tracer: Tracer, input: Tensor, *_: Any, **__: Any) -> Tensor:
    """Keeps shape and provenance."""
    return tracer.emit(input.shape, input.dtype, tracer.value(input) or CONSTANT)


@rule(*_named(_FLOATING))
def floating(tracer: Tracer, input: Tensor, **_: Any) -> Tensor:
    """Keeps shape and provenance; integers become floating-point numbers."""
    return tracer.emit(input.shape, _float(input.dtype), tracer.value(input) or CONSTANT)


def _float(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.get_default_dtype()


def _axis(dim: int, rank: int) -> int:
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


def _absorb(tracer: Tracer, name: str, value: Value) -> Value:
    """Once parameters meet activations in an operation without a node of its own they are out of reach."""
    if not value.sources:
        return value
    tracer.fold(value.params, name)
    return Value(value.sources)


@rule(*_named(_COMBINE))
def combine(tracer: Tracer, input: Any, other: Any, *_: Any, **__: Any) -> Tensor:
    """An operation on two operands that is folded away."""
    merged = tracer.merged(tensors_in((input, other)))
    return _result(tracer, input, other, _absorb(tracer, "an operation on two values", merged))


@rule(*_named(_DIVIDE))
def divide(tracer: Tracer, input: Any, other: Any, *, rounding_mode: str | None = None, **_: Any) -> Tensor:
    """A quotient, of floating-point type unless it is rounded; folded away."""
    out = combine(tracer, input, other)
    return out if rounding_mode else tracer.emit(out.shape, _float(out.dtype), tracer.value(out) or CONSTANT)


@rule(*_named(_MULTIPLY))
def multiply(tracer: Tracer, input: Any, other: Any, **_: Any) -> Tensor:
    """A product of two values: perhaps a squeeze-and-excitation gate."""
    merged = _absorb(tracer, "multiplication", tracer.merged(tensors_in((input, other))))
    if len(merged.sources) > 1:
        merged = Value(tracer.join("mul", (tracer.sources(input), tracer.sources(other))))
    return _result(tracer, input, other, merged)


@rule(*_named(_ADD))
def add(tracer: Tracer, input: Any, other: Any, **_: Any) -> Tensor:
    """A sum, or an offset by a constant."""
    return _result(tracer, input, other, _added(tracer, input, other))


def _added(tracer: Tracer, input: Any, other: Any) -> Value:
    merged = tracer.merged(tensors_in((input, other)))
    if not merged.sources:
        return merged
    operands = []
    for operand, partner in ((input, other), (other, input)):
        sources = tracer.sources(operand)
        table = _position_table(tracer, operand, partner)
        operands.append(position_step(tracer, (), table) if table is not None else sources)
    return _absorb(tracer, "addition", Value(tracer.join("sum", operands), merged.params))


def _position_table(tracer: Tracer, operand: Any, tokens: Any) -> str | None:
    """The parameter behind ``operand`` when it holds a learned vector for each position of ``tokens``."""
    if not (isinstance(operand, Tensor) and isinstance(tokens, Tensor)) or not tracer.sources(tokens):
        return None
    name = tracer.parameter(operand)
    if name is None or name in tracer.claimed or tokens.dim() < 3:
        return None
    stored = tuple(tracer.parameters[name].shape)
    while len(stored) > 2 and stored[0] == 1:
        stored = stored[1:]
    inner = tuple(tokens.shape[1:])
    aligned = tuple(operand.shape[-len(inner) :]) == inner and len(stored) == len(inner)
    channels_agree = stored[-1:] == inner[-1:] or (len(stored) == 3 and stored[0] == inner[0])
    return name if aligned and channels_agree and math.prod(stored) > max(stored[0], stored[-1]) else None


def _in_place(function: Callable[..., Value]) -> Callable[..., Tensor]:
    def apply(tracer: Tracer, input: Tensor, other: Any, **_: Any) -> Tensor:
        if isinstance(other, Tensor) and broadcast(input.shape, other.shape) != tuple(input.shape):
            raise RuntimeError(f"shape {tuple(other.shape)} cannot be written into shape {tuple(input.shape)}")
        if tracer.owns(input):  # the network's own memory stays as it is
            return input
        tracer.mark(input, function(tracer, input, other))
        return input

    return apply


rule(Tensor.add_, Tensor.__iadd__, Tensor.sub_, Tensor.__isub__)(_in_place(_added))
rule(Tensor.mul_, Tensor.__imul__)(
    _in_place(lambda tracer, input, other: tracer.value(multiply(tracer, input, other)) or CONSTANT)
)


@rule(torch.cat, torch.concat, torch.concatenate)
def concatenate(tracer: Tracer, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Tensor:
    """A concatenation of different nodes."""
    shapes = [tuple(tensor.shape) for tensor in tensors if tuple(tensor.shape) != (0,)] or [(0,)]
    axis = _axis(dim, len(shapes[0]))
    if len({(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}) > 1:
        raise RuntimeError(f"concatenation along dimension {dim} got tensors of shapes {shapes}")
    shape = list(shapes[0])
    shape[axis] = sum(other[axis] for other in shapes)
    return tracer.emit(shape, _common_type(tensors), _joined(tracer, tensors))


@rule(torch.stack)
def stack(tracer: Tracer, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Tensor:
    """A concatenation along a new dimension."""
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise RuntimeError(f"stack expected tensors of one shape, got {sorted(shapes)}")
    shape = list(tensors[0].shape)
    shape.insert(_axis(dim, len(shape) + 1), len(tensors))
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
    merged = _absorb(tracer, "concatenation", tracer.merged(tensors))
    sources = tracer.join("concat", [tracer.sources(tensor) for tensor in tensors])
    return Value(sources, merged.params)


@rule(F.softmax, torch.softmax, Tensor.softmax)
def softmax(tracer: Tracer, input: Tensor, dim: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """A softmax: attention when its result multiplies values."""
    _axis(dim or 0, input.dim())
    value = tracer.value(input) or CONSTANT
    sources = tracer.step("softmax", value.sources) if value.sources else ()
    return tracer.emit(input.shape, _type_among(args, kwargs) or input.dtype, Value(sources, value.params))


@rule(F.log_softmax, torch.log_softmax, Tensor.log_softmax)
def log_softmax(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Log-probabilities, which belong to a loss."""
    return tracer.emit(input.shape, _type_among(args, kwargs) or input.dtype, tracer.value(input) or CONSTANT)


def _type_among(args: Sequence[Any], kwargs: dict[str, Any]) -> torch.dtype | None:
    return next((arg for arg in (*args, *kwargs.values()) if isinstance(arg, torch.dtype)), None)


def _attended(tracer: Tracer, operands: Sequence[Tensor]) -> Sources:
    """Sources of a product: scores times values make self-attention, which enters from scores and values alike."""
    entering = [tracer.sources(operand) for operand in operands]
    scores = [s for s in entering if len(s) == 1 and tracer.steps[s[0]].kind == "softmax"]
    if not scores:
        return union(*entering)
    below = [tracer.steps[s[0]].inputs if s in scores else s for s in entering]
    return tracer.step("msa", union(*below))


@rule(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm)
def matmul(tracer: Tracer, input: Tensor, other: Tensor | None = None, *, mat2: Any = None, **_: Any) -> Tensor:
    """A matrix product of two values, or with a parameter (a linear layer)."""
    other = mat2 if other is None else other
    assert other is not None
    a, b = tuple(input.shape), tuple(other.shape)
    if a[-1] != b[max(len(b) - 2, 0)]:
        raise RuntimeError(f"matrix product got shapes {a} and {b}")
    shape = broadcast(a[:-2], b[:-2]) + a[-2:-1] + (b[-1:] if len(b) > 1 else ())
    sources = matrix_product(tracer, input, other)
    if sources is None:
        merged = _absorb(tracer, "a matrix product", tracer.merged((input, other)))
        value = Value(_attended(tracer, (input, other)), merged.params) if merged.sources else merged
    else:
        value = Value(sources)
    return tracer.emit(shape, input.dtype, value)


@rule(torch.addmm, Tensor.addmm)
def addmm(tracer: Tracer, input: Tensor, mat1: Tensor, mat2: Tensor, **_: Any) -> Tensor:
    """``b + x W``, as layers that store their weight as (in, out) compute it."""
    sources = matrix_product(tracer, mat1, mat2, bias=input)
    product = matmul(tracer, mat1, mat2) if sources is None else None
    value = Value(sources) if sources is not None else _added(tracer, input, product)
    return tracer.emit((mat1.shape[0], mat2.shape[1]), mat1.dtype, value)


def _product(function: Callable[..., Tensor]) -> Rule:
    """Other products; an einsum with attention scores is attention."""

    def product(tracer: Tracer, *args: Any, **kwargs: Any) -> Tensor:
        operands = list(tensors_in(args))
        merged = _absorb(tracer, "a product", tracer.merged(operands))
        value = Value(_attended(tracer, operands), merged.params) if merged.sources else merged
        out = function(*map_tensors(tracer.lift, args), **kwargs)
        return tracer.emit(out.shape, out.dtype, value)

    return product


def _constant(function: Callable[..., Tensor]) -> Rule:
    """A new tensor that takes no more than shape and type from another."""

    def constant(tracer: Tracer, *args: Any, **kwargs: Any) -> Tensor:
        return function(*map_tensors(tracer.lift, args), **{**kwargs, "device": "meta"})

    return constant


for _function in (torch.einsum, F.bilinear, torch.baddbmm, Tensor.baddbmm):
    rule(_function)(_product(_function))
for _function in _named(_CONSTANTS):
    rule(_function)(_constant(_function))


@rule(Tensor.to, Tensor.cuda, Tensor.cpu)
def move(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A change of type; abstract tensors have no device to move between."""
    wanted = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, (torch.dtype, Tensor))]
    dtype = next((arg if isinstance(arg, torch.dtype) else arg.dtype for arg in wanted), input.dtype)
    return tracer.emit(input.shape, dtype, tracer.value(input) or CONSTANT)


@rule(Tensor.__getitem__)
def getitem(tracer: Tracer, input: Tensor, index: Any) -> Tensor:
    """Part of a tensor; a mask whose values are known selects as many elements as it has."""
    places = index if isinstance(index, tuple) else (index,)
    if any(isinstance(place, Tensor) and place.dtype == torch.bool and not place.is_meta for place in places):
        known: list[Any] = []
        for place in places:
            mask = isinstance(place, Tensor) and place.dtype == torch.bool and not place.is_meta
            known.extend(place.nonzero(as_tuple=True) if mask else (place,))
        index = tuple(known)
    value = _absorb(tracer, "indexing", tracer.merged(tensors_in((input, index))))
    result = tracer.lift(input)[map_tensors(tracer.lift, index)]
    return tracer.tag(result, input, value)


@rule(torch._nested_tensor_from_mask_left_aligned)
def left_aligned(tracer: Tracer, *_: Any, **__: Any) -> bool:
    """Whether padding could be dropped, which transformers ask before they take a shortcut; the answer is no."""
    return False


@rule(torch.flatten, Tensor.flatten)
def flatten(tracer: Tracer, input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Joins neighbouring dimensions."""
    shape = tuple(input.shape)
    start, end = _axis(start_dim, len(shape)), _axis(end_dim, len(shape))
    if start > end:
        raise RuntimeError(f"flatten got dimensions {start_dim} to {end_dim} for an input of shape {shape}")
    return tracer.view(input, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


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
    return tracer.view(input, shape)


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
    shape.insert(_axis(dim, len(shape) + 1), 1)
    return tracer.view(input, shape)


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
