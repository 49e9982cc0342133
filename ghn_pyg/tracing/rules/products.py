"""Rules for attention, and for products as sums over indices: those with a matrix of parameters are linear layers."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ...utils.nested_tensors import tensors_in
from ..kept import Kept, enters
from ..steps import Sources, union
from ..tracer import Tracer, rule
from ..values import CONSTANT, Value
from ..weight_parts import Part, made_of, parts_of
from .arithmetic import axis_of
from .layers import matrix_step

_LAYER: Final = ("conv", "sep_conv", "dil_conv", "bias")
_INDICES: Final = string.ascii_uppercase + string.ascii_lowercase


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


# --- products over indices -------------------------------------------------------------------------------------------


def contracted(
    tracer: Tracer,
    operands: Sequence[Tensor],
    terms: Sequence[str],
    result: str,
    name: str = "a product",
    bias: Tensor | None = None,
) -> Tensor:
    """The product of tensors whose dimensions have the indices ``terms``, summed over all that are not in ``result``.

    With a matrix of parameters it is a linear layer. More than two operands are multiplied one after the other where
    there are parameters among them.
    """
    if len(operands) > 2 and any(parts_of(tracer, tensor) for tensor in operands):
        needed = set(result).union(*terms[2:])
        between = "".join(index for index in dict.fromkeys(terms[0] + terms[1]) if index in needed)
        first = contracted(tracer, operands[:2], terms[:2], between, name)
        return contracted(tracer, (first, *operands[2:]), (between, *terms[2:]), result, name, bias)
    shape = [_extent(index, operands, terms) for index in result]
    own = bias is not None and tracer.parameter(bias) is not None
    layer = _layer(tracer, operands, terms, result, bias if own else None)
    out = _layer_or_product(tracer, layer, operands, shape, name)
    if layer is None and not tracer.sources(out):
        made_of(tracer, out, _multiplied(tracer, operands, terms, result))
    return out if bias is None or (own and layer is not None) else tracer.call(torch.add, bias, out)


def _layer_or_product(
    tracer: Tracer, layer: Sources | None, operands: Sequence[Tensor], shape: Sequence[int], name: str
) -> Tensor:
    """The result of a layer when there is one, else of a product of two values."""
    if layer is not None:
        return tracer.opened(tracer.emit(shape, operands[0].dtype, Value(layer)))
    merged = tracer.merged(operands)
    if merged.sources and len(operands) > 1:
        reason = Kept.POSITION_BIAS if tracer.looked_up.issuperset(merged.params) else enters(name)
        tracer.take_back(merged.params, Kept.LAYER_SCALE)  # it is a weight that activations have modulated
        merged = Value(tracer.fold(merged.params, reason, _attended(tracer, operands)))
    return tracer.emit(shape, operands[0].dtype, merged)


def _extent(index: str, operands: Sequence[Tensor], terms: Sequence[str]) -> int:
    """The number of values that an index takes; where it takes several, all others have one."""
    sizes = {tensor.shape[term.index(index)] for tensor, term in zip(operands, terms, strict=True) if index in term}
    if len(sizes - {1}) > 1:
        raise RuntimeError(
            f"product got shapes {' and '.join(str(tuple(tensor.shape)) for tensor in operands)}, "
            "whose dimensions do not fit together"
        )
    return max(sizes - {1}, default=1)


def _layer(
    tracer: Tracer, operands: Sequence[Tensor], terms: Sequence[str], result: str, bias: Tensor | None
) -> Sources | None:
    """The layer that a product of an activation and a matrix of parameters is."""
    if len(operands) != 2:
        return None
    (first, second), (one, other) = operands, terms
    for value, weight, entering, stored in ((first, second, one, other), (second, first, other, one)):
        if not tracer.sources(value) or not parts_of(tracer, weight) or len(set(stored)) < len(stored):
            continue
        spanned = _spanned(value, entering, weight, stored)
        roles = [_role(index in spanned, index in result) for index in stored]
        if {"o", "i"} <= set(roles) <= {"o", "i", "s"}:
            return matrix_step(tracer, tracer.sources(value), weight, "".join(roles), bias)
    return None


def _spanned(value: Tensor, entering: str, weight: Tensor, stored: str) -> set[str]:
    """The indices of a value, less those along which it is repeated for a weight."""
    sizes = dict(zip(stored, weight.shape, strict=True))
    return {index for index, size in zip(entering, value.shape, strict=True) if sizes.get(index, size) == size}


def _role(enters: bool, leaves: bool) -> str:
    """What a dimension of a weight is: of a stack, of the input, of the output, or of none of them."""
    return ("s" if leaves else "i") if enters else "o" if leaves else "?"


def _multiplied(tracer: Tracer, operands: Sequence[Tensor], terms: Sequence[str], result: str) -> Iterator[Part]:
    """The parameters in a product of weights."""
    for tensor, term in zip(operands, terms, strict=True):
        for name, axes in parts_of(tracer, tensor):
            yield Part(name, tuple(axes[term.index(index)] if index in term else () for index in result))


# --- the functions ---------------------------------------------------------------------------------------------------


@rule(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm, torch.mv, Tensor.mv)
def matmul(
    tracer: Tracer, input: Tensor, other: Tensor | None = None, *, mat2: Any = None, vec: Any = None, **_: Any
) -> Tensor:
    """A matrix product of two values, or with a parameter (a linear layer)."""
    return _matrices(tracer, input, next(operand for operand in (other, mat2, vec) if operand is not None))


def _matrices(tracer: Tracer, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    rows, columns = "r" * (a.dim() > 1), "c" * (b.dim() > 1)
    lead = _INDICES[: max(a.dim(), b.dim(), 2) - 2]
    terms = (
        lead[len(lead) - max(a.dim() - 2, 0) :] + rows + "k",
        lead[len(lead) - max(b.dim() - 2, 0) :] + "k" + columns,
    )
    if a.shape[-1] != b.shape[-2 if columns else -1]:
        raise RuntimeError(f"matrix product got shapes {tuple(a.shape)} and {tuple(b.shape)}")
    return contracted(tracer, (a, b), terms, lead + rows + columns, "a matrix product", bias)


_FACTORS: Final = ("mat1", "batch1", "mat", "mat2", "batch2", "vec")
"""Names of the first factor of a product, then of the second."""


@rule(torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm, torch.addmv, Tensor.addmv)
def add_matmul(
    tracer: Tracer, input: Tensor, *operands: Tensor, beta: float = 1, alpha: float = 1, **named: Any
) -> Tensor:
    """``b + x W``, as layers that store their weight as (in, out) compute it."""
    given = [*operands, *(named[name] for name in _FACTORS if name in named)]
    return _matrices(tracer, given[0], given[1], input if beta else None)


@rule(torch.addbmm, Tensor.addbmm)
def add_summed_matmul(
    tracer: Tracer, input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """The same for the sum of a batch of matrix products."""
    terms, bias = ("brk", "bkc"), input if beta else None
    return contracted(tracer, (batch1, batch2), terms, "rc", "a matrix product", bias)


@rule(torch.einsum)
def einsum(tracer: Tracer, equation: Any, *operands: Any) -> Tensor:
    """A sum of products over indices."""
    given: Sequence[Any] = operands
    if not isinstance(equation, str):
        equation, given = _as_equation((equation, *operands))
    tensors = list(tensors_in(given))
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        result = "..." * ("..." in left) + "".join(sorted(i for i in set(left) - {",", "."} if left.count(i) == 1))
    ranks = [tensor.dim() - len(term.replace("...", "")) for tensor, term in zip(tensors, terms, strict=True)]
    unnamed = [index for index in _INDICES if index not in equation][: max(ranks, default=0)]
    named = [
        term.replace("...", "".join(unnamed[len(unnamed) - rank :])) for term, rank in zip(terms, ranks, strict=True)
    ]
    torch.einsum(equation, *map(tracer.lift, tensors))  # raises an error where the shapes do not fit
    return contracted(tracer, tensors, named, result.replace("...", "".join(unnamed)))


def _as_equation(given: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """The equation of operands that are followed by the numbers of their indices."""
    count = len(given) // 2
    terms = ["".join("..." if i is ... else _INDICES[i] for i in numbers) for numbers in given[1::2]]
    result = "".join("..." if i is ... else _INDICES[i] for i in given[-1])
    return ",".join(terms[:count]) + ("->" + result if len(given) % 2 else ""), given[: 2 * count : 2]


@rule(torch._grouped_mm, F.grouped_mm)
def grouped_product(tracer: Tracer, mat_a: Tensor, mat_b: Tensor, *_: Any, **__: Any) -> Tensor:
    """Groups of rows, each by a matrix of its own: the experts of a mixture."""
    inputs = tracer.sources(mat_a)
    layer = matrix_step(tracer, inputs, mat_b, "sio"[-mat_b.dim() :], None) if inputs else None
    shape = (*mat_a.shape[:-1], mat_b.shape[-1])
    return _layer_or_product(tracer, layer, (mat_a, mat_b), shape, "a matrix product")


@rule(torch.tensordot)
def tensordot(tracer: Tracer, a: Tensor, b: Tensor, dims: Any = 2, **_: Any) -> Tensor:
    """A product over chosen dimensions."""
    first, second = (range(-dims, 0), range(dims)) if isinstance(dims, int) else dims
    one, other = list(_INDICES[: a.dim()]), list(_INDICES[a.dim() : a.dim() + b.dim()])
    for at, to in zip(first, second, strict=True):
        other[to] = one[at]
    result = "".join(index for index in one + other if (index in one) != (index in other))
    return contracted(tracer, (a, b), ("".join(one), "".join(other)), result)


@rule(F.bilinear)
def bilinear(tracer: Tracer, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W y + b`` for each output: a linear layer on all products of features of two inputs."""
    inputs = union(tracer.sources(input1), tracer.sources(input2))
    layer = matrix_step(tracer, inputs, weight, "oii", bias) if inputs else None
    out = torch.nn.functional.bilinear(*map(tracer.lift, (input1, input2, weight)))
    return _layer_or_product(tracer, layer, (input1, input2, weight), out.shape, "a product")
