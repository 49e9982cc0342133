"""Rules for products of matrices and for attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .rules_layers import matrix_product
from .rules_values import absorb, added, axis_of, broadcast
from .steps import Sources, union
from .tensors import map_tensors, tensors_in
from .tracer import CONSTANT, Rule, Tracer, Value, rule


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
    """Sources of a product: scores times values make self-attention, which enters from scores and values alike."""
    entering = tracer.entering(operands)
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
        merged = absorb(tracer, "a matrix product", tracer.merged((input, other)))
        value = Value(_attended(tracer, (input, other)), merged.params) if merged.sources else merged
    else:
        value = Value(sources)
    return tracer.emit(shape, input.dtype, value)


@rule(torch.addmm, Tensor.addmm)
def addmm(tracer: Tracer, input: Tensor, mat1: Tensor, mat2: Tensor, **_: Any) -> Tensor:
    """``b + x W``, as layers that store their weight as (in, out) compute it."""
    sources = matrix_product(tracer, mat1, mat2, bias=input)
    product = matmul(tracer, mat1, mat2) if sources is None else None
    value = Value(sources) if sources is not None else added(tracer, input, product)
    return tracer.emit((mat1.shape[0], mat2.shape[1]), mat1.dtype, value)


def _product(function: Callable[..., Tensor]) -> Rule:
    """Other products; an einsum with attention scores is attention."""

    def product(tracer: Tracer, *args: Any, **kwargs: Any) -> Tensor:
        operands = list(tensors_in(args))
        merged = absorb(tracer, "a product", tracer.merged(operands))
        value = Value(_attended(tracer, operands), merged.params) if merged.sources else merged
        out = function(*map_tensors(tracer.lift, args), **kwargs)
        return tracer.emit(out.shape, out.dtype, value)

    return product


for _function in (torch.einsum, F.bilinear, torch.baddbmm, Tensor.baddbmm):
    rule(_function)(_product(_function))
