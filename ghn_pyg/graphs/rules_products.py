"""Rules for products of matrices and for attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from .reasons import Kept, enters
from .rules_layers import weight_step
from .rules_values import added, axis_of, broadcast
from .steps import Sources, union
from .tensors import map_tensors, tensors_in
from .tracer import CONSTANT, Rule, Tracer, Value, rule

_LAYER: Final = ("conv", "sep_conv", "dil_conv", "bias")


@rule(F.softmax, torch.softmax, Tensor.softmax)
def softmax(tracer: Tracer, input: Tensor, dim: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """A softmax: attention when its result multiplies values."""
    axis_of(dim or 0, input.dim())
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
    """Sources of a product: scores times values make self-attention, which enters from scores and values alike.

    Where layers mix the heads of the scores first, the softmax itself stands for the attention.
    """
    entering = tracer.entering(operands)
    scores = [s for s in entering if len(s) == 1 and tracer.steps[s[0]].kind == "softmax"]
    if scores:
        return tracer.step("msa", union(*(tracer.steps[s[0]].inputs if s in scores else s for s in entering)))
    if len(set(entering)) > 1:
        for sources in entering:
            if (mixed := _behind_layers(tracer, sources)) is not None:
                tracer.steps[mixed].kind = "msa"
    return tracer.step("product", union(*entering)) if all(entering) else union(*entering)


def _behind_layers(tracer: Tracer, sources: Sources) -> int | None:
    """The softmax that a chain of layers starts from."""
    while len(sources) == 1 and tracer.steps[sources[0]].kind in _LAYER:
        sources = tracer.steps[sources[0]].inputs
    return sources[0] if len(sources) == 1 and tracer.steps[sources[0]].kind == "softmax" else None


# --- products with a parameter ---------------------------------------------------------------------------------------


def _linear(
    tracer: Tracer, input: Any, weight: Any, bias: Tensor | None = None, *, out_first: bool = False
) -> Sources | None:
    """A product over a dimension of a matrix of parameters: a linear layer; ``None`` for any other product.

    ``out_first`` tells that the product is over the last dimension of ``weight`` as it is given. Of more than two
    dimensions the last two are those of a stack of matrices.
    """
    name = tracer.parameter(weight) if isinstance(weight, Tensor) else None
    if name is None or weight.dim() < 2 or not tracer.sources(input):
        return None
    stored, used = tuple(tracer.parameters[name].shape), tuple(weight.shape)
    if not 2 <= len(stored) <= len(used) or sorted(stored[-2:]) != sorted(used[-2:]):
        return None
    square = used[-1] == used[-2]
    turned = weight is not tracer.parameters[name] if square else stored[-2:] != used[-2:]
    layout = "out_in" if turned != out_first else "in_out"
    return weight_step(tracer, "conv", tracer.sources(input), weight, bias, layout, stacked=len(stored) - 2)


def _layer_or_product(
    tracer: Tracer, layer: Sources | None, operands: Sequence[Tensor], shape: Sequence[int], name: str
) -> Tensor:
    """The result of a layer when there is one, else of a product of two values."""
    if layer is not None:
        return tracer.opened(tracer.emit(shape, operands[0].dtype, Value(layer)))
    merged = tracer.merged(operands)
    if merged.sources:
        reason = Kept.POSITION_BIAS if tracer.looked_up.issuperset(merged.params) else enters(name)
        merged = Value(tracer.fold(merged.params, reason, _attended(tracer, operands)))
    return tracer.emit(shape, operands[0].dtype, merged)


@rule(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm, torch.mv, Tensor.mv)
def matmul(
    tracer: Tracer, input: Tensor, other: Tensor | None = None, *, mat2: Any = None, vec: Any = None, **_: Any
) -> Tensor:
    """A matrix product of two values, or with a parameter (a linear layer)."""
    other = next(operand for operand in (other, mat2, vec) if operand is not None)
    a, b = tuple(input.shape), tuple(other.shape)
    if a[-1] != b[max(len(b) - 2, 0)]:
        raise RuntimeError(f"matrix product got shapes {a} and {b}")
    shape = broadcast(a[:-2], b[:-2]) + a[-2:-1] + (b[-1:] if len(b) > 1 else ())
    layer = _linear(tracer, input, other)
    if layer is None:
        layer = _linear(tracer, other, input, out_first=True)
    return _layer_or_product(tracer, layer, (input, other), shape, "a matrix product")


@rule(torch.addmm, Tensor.addmm)
def addmm(tracer: Tracer, input: Tensor, mat1: Tensor, mat2: Tensor, **_: Any) -> Tensor:
    """``b + x W``, as layers that store their weight as (in, out) compute it."""
    layer = _linear(tracer, mat1, mat2, input)
    value = Value(layer) if layer is not None else added(tracer, input, matmul(tracer, mat1, mat2))
    return tracer.emit((mat1.shape[0], mat2.shape[1]), mat1.dtype, value)


@rule(torch.einsum)
def einsum(tracer: Tracer, equation: str, *operands: Any) -> Tensor:
    """A sum of products: a linear layer when it is over one dimension of a matrix of parameters."""
    tensors = list(tensors_in(operands))
    out = torch.einsum(equation, *map(tracer.lift, tensors))
    layer = None
    terms, arrow, result = equation.replace(" ", "").partition("->")
    if len(tensors) == 2 and arrow:
        (first, second), (a, b) = tensors, terms.split(",")
        layer = _summed(tracer, first, second, a, b, result)
        if layer is None:
            layer = _summed(tracer, second, first, b, a, result)
    return _layer_or_product(tracer, layer, tensors, out.shape, "a product")


def _summed(tracer: Tracer, value: Tensor, weight: Tensor, entering: str, stored: str, result: str) -> Sources | None:
    """The layer that an einsum is whose weight ends in one dimension to sum over and one that is new."""
    summed = [index in entering and index not in result for index in stored[-2:]]
    new = [index in result and index not in entering for index in stored[-2:]]
    if not sorted(summed) == [False, True] == sorted(new) or not set(stored[:-2]) <= set(entering) & set(result):
        return None
    return _linear(tracer, value, weight, out_first=new[0])


@rule(torch._grouped_mm, F.grouped_mm)
def grouped_product(tracer: Tracer, mat_a: Tensor, mat_b: Tensor, *_: Any, **__: Any) -> Tensor:
    """Groups of rows, each by a matrix of its own: the experts of a mixture."""
    shape = (*mat_a.shape[:-1], mat_b.shape[-1])
    return _layer_or_product(tracer, _linear(tracer, mat_a, mat_b), (mat_a, mat_b), shape, "a matrix product")


@rule(torch.tensordot)
def tensordot(tracer: Tracer, a: Tensor, b: Tensor, dims: Any = 2, **_: Any) -> Tensor:
    """A product over chosen dimensions."""
    out = torch.tensordot(tracer.lift(a), tracer.lift(b), dims=dims)
    first, second = (range(-dims, 0), range(dims)) if isinstance(dims, int) else dims
    layer = None
    if len(first) == len(second) == 1:
        layer = _linear(tracer, a, b, out_first=second[0] % b.dim() == 1)
        if layer is None:
            layer = _linear(tracer, b, a, out_first=first[0] % a.dim() == 1)
    return _layer_or_product(tracer, layer, (a, b), out.shape, "a product")


def _product(function: Callable[..., Tensor]) -> Rule:
    """Other products."""

    def product(tracer: Tracer, *args: Any, **kwargs: Any) -> Tensor:
        out = function(*map_tensors(tracer.lift, args), **kwargs)
        return _layer_or_product(tracer, None, list(tensors_in(args)), out.shape, "a product")

    return product


for _function in (F.bilinear, torch.baddbmm, Tensor.baddbmm):
    rule(_function)(_product(_function))
