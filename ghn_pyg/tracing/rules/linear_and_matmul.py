"""Rules for linear layers and matrix products: a product with a matrix of parameters is a linear layer."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ...utils.compat import GROUPED_MM, functions
from ...utils.nested_tensors import tensors_in
from ..kept_reasons import Kept, enters
from ..steps import WEIGHTS, Sources, union
from ..tracer import Tracer, rule
from ..values import CONSTANT, Value
from ..weight_parts import Part, known_parts, made_of, parts_of
from .attention import attended
from .layer_steps import entered, expect, layer_output, matrix_step, weight_step
from .open_layers import Open, is_constant, open_in, opened

_INDICES: Final = string.ascii_uppercase + string.ascii_lowercase
_FACTORS: Final = ("mat1", "batch1", "mat", "mat2", "batch2", "vec")
"""Names of the first factor of a product, then of the second."""
_ROLES: Final = {(True, True): "s", (True, False): "i", (False, True): "o", (False, False): "?"}
"""Whether a dimension of a weight is in the input and in the output → its role: stack, input or output."""


def _contracted(
    tracer: Tracer, operands: Sequence[Tensor], terms: Sequence[str], result: str, name: str = "a product",
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The product of tensors whose dimensions have the indices ``terms``, summed over all that are not in ``result``.

    With a matrix of parameters it is a linear layer. If there are parameters among more than two operands, these are
    multiplied one after the other.
    """
    if len(operands) > 2 and any(parts_of(tracer, tensor) for tensor in operands):
        needed = set(result).union(*terms[2:])
        between = "".join(index for index in dict.fromkeys(terms[0] + terms[1]) if index in needed)
        first = _contracted(tracer, operands[:2], terms[:2], between, name)
        return _contracted(tracer, (first, *operands[2:]), (between, *terms[2:]), result, name, bias)
    sizes = {index: _size(index, operands, terms) for index in "".join(terms)}
    shape = [sizes[index] for index in result]
    own = bias is not None and tracer.parameter(bias) is not None
    layer = _layer(tracer, operands, terms, result, bias if own else None)
    out = _layer_or_product(tracer, layer, operands, shape, name)
    if layer is None and not tracer.sources(out):
        made_of(tracer, out, _multiplied(tracer, operands, terms, result))
        if (tracer.value(out) or CONSTANT).params and shape:  # of a constant, such as a first state of zeros
            tracer.origin(out).open = Open((), (), shape[-1])
            tracer.origin(out).factors = lambda: _layer(tracer, operands, terms, result, None, of_constant=True)
    elif layer is None and len(operands) == 2:
        _carry_mixed(tracer, out, operands, terms, result)
    return out if bias is None or (own and layer is not None) else tracer.call(torch.add, bias, out)


def _layer_or_product(
    tracer: Tracer, layer: Sources | None, operands: Sequence[Tensor], shape: Sequence[int], name: str
) -> Tensor:
    """The result of a layer, or of a product of values if ``layer`` is ``None``."""
    if layer is not None:
        return opened(tracer, tracer.emit(shape, operands[0].dtype, Value(layer)))
    merged = tracer.merged(operands)
    if merged.sources and len(operands) > 1:
        reason = Kept.POSITION_BIAS if tracer.looked_up.issuperset(merged.params) else enters(name)
        modulated = [part.name for operand in operands for part in known_parts(tracer, operand)]
        tracer.take_back(modulated, Kept.LAYER_SCALE)  # it is a weight that activations have modulated
        entering = attended(tracer, operands)
        for param in merged.params:
            entering = tracer.fold((param,), _known_reason(tracer, param, operands) or reason, entering)
        merged = Value(entering)
    return tracer.emit(shape, operands[0].dtype, merged)


def _known_reason(tracer: Tracer, name: str, operands: Sequence[Tensor]) -> Kept | None:
    """Why a parameter of a matrix is kept that scales others or, as the values of a sparse matrix, fills it."""
    if name in tracer.scaling:
        return Kept.MAGNITUDE
    shape = tracer.parameters[name].shape
    matrices = [tensor for tensor in operands if min(tensor.shape[-2:], default=1) > 1 and not tracer.sources(tensor)]
    filled = [tensor for tensor in matrices if name == tracer.parameter(tensor) and not known_parts(tracer, tensor)]
    return Kept.FLAT if filled and shape.numel() == max(shape, default=1) else None


def _carry_mixed(tracer: Tracer, out: Tensor, operands: Sequence[Tensor], terms: Sequence[str], result: str) -> None:
    """A product that mixes rows, as of an adjacency matrix and the features of nodes, leaves a layer open."""
    (matrix, value), (mixing, term) = operands, terms
    found, features = open_in(tracer, value), term[-1:]
    if found is None or (tracer.value(matrix) or CONSTANT).params or features in mixing or features != result[-1:]:
        return
    if found.channels % value.shape[-1] == 0:
        tracer.origin(out).open = found._replace(sources=tracer.sources(out), mixed=True)


def _size(index: str, operands: Sequence[Tensor], terms: Sequence[str]) -> int:
    """The size of the dimensions with an index, which broadcast."""
    sizes = {tensor.shape[term.index(index)] for tensor, term in zip(operands, terms, strict=True) if index in term}
    if len(sizes - {1}) > 1:
        raise RuntimeError(f"product got shapes {[tuple(tensor.shape) for tensor in operands]}")
    return max(sizes - {1}, default=1)


def _layer(
    tracer: Tracer, operands: Sequence[Tensor], terms: Sequence[str], result: str, bias: Tensor | None,
    of_constant: bool = False,
) -> Sources | None:  # fmt: skip
    """The linear layer that the product of an activation, or of a constant, and a matrix of parameters is."""
    if len(operands) != 2:
        return None
    (first, second), (one, other) = operands, terms
    for value, weight, entering, stored in ((first, second, one, other), (second, first, other, one)):
        fits = is_constant(tracer, value) if of_constant else bool(tracer.sources(value))
        if not fits or not parts_of(tracer, weight) or len(set(stored)) < len(stored):
            continue
        sizes = dict(zip(stored, weight.shape, strict=True))
        # A dimension of size 1 is repeated for a weight, so it is none of its inputs.
        inputs = {index for index, size in zip(entering, value.shape, strict=True) if sizes.get(index, size) == size}
        roles = "".join(_ROLES[index in inputs, index in result] for index in stored)
        wide = [
            (role, index)
            for role, index in zip(roles, stored, strict=True)
            if sizes[index] > 1 or index not in entering
        ]
        if sorted(role for role, _ in wide) in (["i"], ["i", "s"]):  # a vector for all features, or those of each head
            roles = roles.replace("s", "o")
        if roles == "i" or {"o", "i"} <= set(roles) <= {"o", "i", "s"}:
            return matrix_step(tracer, tracer.sources(value), weight, roles, bias)
    return None


def weighted_sum(tracer: Tracer, product: Tensor) -> Tensor | None:
    """The sum over the last dimension of a product with a vector of parameters, which is a linear layer."""
    if not isinstance(factors := tracer.known(product).factors, tuple):
        return None
    value, weight = factors if tracer.sources(factors[0]) else factors[::-1]
    same = {_averaged(tracer, tracer.sources(tensor)) for tensor in (value, product)}
    if len(same) > 1 or not any(part.linear for part in known_parts(tracer, weight)):
        return None
    indices = _INDICES[: product.dim()]
    terms = [indices[len(indices) - factor.dim() :] for factor in (value, weight)]
    if (layer := _layer(tracer, (value, weight), terms, indices[:-1], None)) is None:
        return None
    return opened(tracer, tracer.emit(product.shape[:-1], product.dtype, Value(layer)))


def _averaged(tracer: Tracer, sources: Sources) -> Sources:
    """What a mean is the mean of."""
    return tracer.steps[sources[0]].inputs if len(sources) == 1 and sources[0] in tracer.statistics else sources


def _multiplied(tracer: Tracer, operands: Sequence[Tensor], terms: Sequence[str], result: str) -> Iterator[Part]:
    """The parameters in a product of weights.

    Where a dimension is summed over, the other factor's own dimensions take its place: ``x (A B C)`` meets B in a
    layer as well.
    """
    for tensor, term in zip(operands, terms, strict=True):
        others = "".join(other for other in terms if other is not term)
        for part in parts_of(tracer, tensor):
            along = dict(zip(term, part.axes, strict=True))
            gone = {axis if axis < 0 else ~axis for index in term if index not in result for axis in along[index]}
            place = tuple(sorted(gone))
            yield Part(part.name, tuple(along.get(i, place if i in others else ()) for i in result))


# --- the functions ---------------------------------------------------------------------------------------------------


@rule(F.linear)
def linear(tracer: Tracer, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x Wᵀ + b``."""
    shape, features = tuple(input.shape), weight.shape[-1]
    expect(shape[-1:] == (features,), f"linear expected {features} input features, got an input of shape {shape}")
    if weight.dim() == 2 and _is_weight(tracer, input):
        product = tracer.call(torch.matmul, input, tracer.call(torch.t, weight))
        return product if bias is None else tracer.call(torch.add, product, bias)
    entering = entered(tracer, input)
    sources = matrix_step(tracer, entering, weight, "oi"[-weight.dim() :], bias)
    if sources is None:
        sources = weight_step(tracer, "conv", entering, weight, bias)
    return layer_output(tracer, (*shape[:-1], *weight.shape[:-1]), input.dtype, sources)


def _is_weight(tracer: Tracer, tensor: Tensor) -> bool:
    """Whether a tensor is computed from the weight of another layer alone."""
    value = tracer.value(tensor) or CONSTANT
    used = {tracer.steps[tracer.claimed[name]].kind for name in value.params if name in tracer.claimed}
    return not value.sources and not used.isdisjoint(WEIGHTS)


@rule(*functions("matmul __matmul__ bmm mm mv"), torch.sparse.mm)
def matmul(tracer: Tracer, input: Tensor, *other: Any, **named: Any) -> Tensor:
    """A matrix product of two values, or with a parameter (a linear layer); sparse ones may reduce otherwise."""
    return _matrices(tracer, *tensors_in((input, *other, *named.values())))


def _matrices(tracer: Tracer, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    rows, columns = "r" * (a.dim() > 1), "c" * (b.dim() > 1)
    lead = _INDICES[: max(a.dim(), b.dim(), 2) - 2]
    terms = (
        lead[len(lead) - max(a.dim() - 2, 0) :] + rows + "k",
        lead[len(lead) - max(b.dim() - 2, 0) :] + "k" + columns,
    )
    if a.shape[-1] != b.shape[-2 if columns else -1]:
        raise RuntimeError(f"matrix product got shapes {tuple(a.shape)} and {tuple(b.shape)}")
    return _contracted(tracer, (a, b), terms, lead + rows + columns, "a matrix product", bias)


@rule(*functions("addmm baddbmm addmv"), torch.sparse.addmm)
def add_matmul(tracer: Tracer, input: Tensor, *operands: Tensor, beta: float = 1, **named: Any) -> Tensor:
    """``b + x W``, as layers that store their weight as (in, out) compute it."""
    given = [*operands, *(named[name] for name in _FACTORS if name in named)]
    return _matrices(tracer, given[0], given[1], input if beta else None)


@rule(torch.addbmm, Tensor.addbmm)
def add_bmm(tracer: Tracer, input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, **_: Any) -> Tensor:
    """The same for a sum over a batch of matrix products."""
    terms, bias = ("brk", "bkc"), input if beta else None
    return _contracted(tracer, (batch1, batch2), terms, "rc", "a matrix product", bias)


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
    unnamed = "".join(index for index in _INDICES if index not in equation)[: max(ranks, default=0)]
    named = [term.replace("...", unnamed[len(unnamed) - rank :]) for term, rank in zip(terms, ranks, strict=True)]
    return _contracted(tracer, tensors, named, result.replace("...", unnamed))


def _as_equation(given: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """The equation of operands that are each followed by a list of indices, perhaps with those of the result last."""
    count = len(given) // 2
    lists = [*given[1 : 2 * count : 2], *given[2 * count :]]
    terms = ["".join("..." if i is ... else _INDICES[i] for i in indices) for indices in lists]
    return "->".join([",".join(terms[:count]), *terms[count:]]), given[: 2 * count : 2]


@rule(*GROUPED_MM)
def grouped_product(tracer: Tracer, mat_a: Tensor, mat_b: Tensor, *_: Any, **__: Any) -> Tensor:
    """Groups of rows times a matrix each: the experts of a mixture."""
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
    return _contracted(tracer, (a, b), ("".join(one), "".join(other)), result)


@rule(F.bilinear)
def bilinear(tracer: Tracer, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``xᵀ W y + b``: a linear layer on all products of features of two inputs."""
    inputs = union(tracer.sources(input1), tracer.sources(input2))
    layer = matrix_step(tracer, inputs, weight, "oii", bias) if inputs else None
    shape = F.bilinear(*map(tracer.lift, (input1, input2, weight))).shape
    return _layer_or_product(tracer, layer, (input1, input2, weight), shape, "a product")
