"""Follows what is done with parameters before they reach a layer as its weight.

Each function notes the parts of its result (``weight_parts.py``), or that parameters scale others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from ..utils.compat import INDEX_SELECT, SELECT, functions
from ..utils.nested_tensors import tensors_in
from .values import CONSTANT, ValueTable
from .weight_parts import Axes, Part, known_parts, made_of, parts_of, without

Follower = Callable[[ValueTable, Callable[..., Any], Sequence[Any], dict[str, Any], Any], None]
FOLLOWERS: Final[dict[Callable[..., Any], Follower]] = {}
"""PyTorch function → what it does to the parts of its arguments."""


def _follows(names: str, *others: Any) -> Callable[[Follower], Follower]:
    """Registers the decorated function for the functions and methods of these names."""

    def register(follower: Follower) -> Follower:
        FOLLOWERS.update(dict.fromkeys((*functions(names), *others), follower))
        return follower

    return register


_RESHAPING: Final = "view view_as reshape reshape_as flatten unflatten ravel"
_JOINING: Final = functions(_RESHAPING)


@_follows(
    f"""{_RESHAPING} transpose swapaxes swapdims permute t adjoint movedim moveaxis unsqueeze squeeze chunk split
    tensor_split narrow select unbind __getitem__ expand expand_as""",
    *(getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH")),
    *SELECT,
)
def _view(
    tracer: ValueTable, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: Any
) -> None:
    """Runs a view on a stand-in, whose strides show what becomes of the dimensions."""
    if not (parts := known_parts(tracer, args[0])):
        return
    stand_in = _stand_in(args[0], func in _JOINING)
    rest, gathered = _without_gather(args[1:]) if func is Tensor.__getitem__ else (args[1:], 0)
    if rest is None:
        return
    for tensor, view in zip(tensors_in([result]), tensors_in([func(stand_in, *rest, **kwargs)]), strict=True):
        if view._base is not None:
            dims = _dimensions(stand_in, view)
            viewed = [_viewed(part, tuple(tracer.parameters[part.name].shape), dims, view.shape) for part in parts]
            made_of(tracer, tensor, [part._replace(axes=((),) * gathered + part.axes) for part in viewed])


def _stand_in(tensor: Tensor, contiguous: bool) -> Tensor:
    """A meta tensor: contiguous for a function that may join dimensions, else without equal strides."""
    strides = [1]
    for size in tensor.shape[:0:-1]:
        strides.append(strides[-1] * (size if contiguous else max(size, 2)))
    return torch.empty_strided(tensor.shape, strides[: tensor.dim()][::-1], dtype=tensor.dtype, device="meta")


def _viewed(part: Part, stored: Sequence[int], dims: Axes, sizes: Sequence[int]) -> Part:
    """A part in a view of its weight, whose dimensions run along ``dims`` of the weight."""
    axes = [tuple(axis for dim in run for axis in part.axes[dim]) for run in dims]
    for dim in range(len(part.axes)):
        split = [position for position, run in enumerate(dims) if run == (dim,)]
        own = [stored[axis] for axis in part.axes[dim] if axis >= 0]
        if len(split) == len(part.axes[dim]) and [sizes[position] for position in split] == own:  # was joined before
            for position, axis in zip(split, part.axes[dim], strict=True):
                axes[position] = (axis,)
    return part._replace(axes=tuple(axes))


def _without_gather(args: Sequence[Any]) -> tuple[Sequence[Any] | None, int]:
    """Index arguments that select one matrix where the given ones gather many, and how many dimensions those add."""
    indices = args[0] if isinstance(args[0], tuple) else (args[0],)
    first, others = indices[:1], indices[1:]
    if any(isinstance(index, (Tensor, list)) for index in others):
        return None, 0
    if not (first and isinstance(first[0], Tensor)):
        return args, 0
    integers = not first[0].is_floating_point() and first[0].dtype != torch.bool
    return ([(0, *others)] if integers else None), first[0].dim()


def _dimensions(base: Tensor, view: Tensor) -> Axes:
    """For each dimension of a view those of its base that it runs along."""
    own = list(zip(base.shape, base.stride(), strict=True))
    runs = [
        tuple(dim for dim, (n, s) in enumerate(own) if n > 1 and 0 < stride < s * n and s <= stride * (size - 1))
        for size, stride in zip(view.shape, view.stride(), strict=True)
    ]
    for position, (size, stride) in enumerate(zip(view.shape, view.stride(), strict=True)):
        if size == 1:  # runs along a dimension of size 1, or one of which it takes a single element
            same = [dim for dim, (_, s) in enumerate(own) if s == stride and not any(dim in run for run in runs)]
            runs[position] = tuple(same[:1])
    return tuple(runs)


@_follows("t_ transpose_ swapaxes_ swapdims_ squeeze_ unsqueeze_")
def _forget(tracer: ValueTable, _: Any, __: Sequence[Any], ___: dict[str, Any], result: Any) -> None:
    """A change of the shape in place, which is not followed."""
    tracer.origin(result).parts = None


@_follows("pad interpolate index_select gather take_along_dim repeat tile", *INDEX_SELECT)
def _resized(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    made_of(tracer, result, _broadcast(known_parts(tracer, args[0]), result))


def _broadcast(parts: Iterable[Part], result: Tensor) -> list[Part]:
    """The parts of a tensor in one that has further dimensions in front."""
    return [part._replace(axes=((),) * (result.dim() - len(part.axes)) + part.axes) for part in parts]


@_follows(
    "contiguous clone detach to type type_as float double half bfloat16 neg __neg__ flip roll tril triu masked_fill",
    Tensor.data.__get__,  # type: ignore[attr-defined]
)
def _linear(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    """A function that keeps the dimensions of a weight and is linear in it; others of its arguments do not count."""
    same = isinstance(result, Tensor) and result.shape == args[0].shape
    if same and tracer.sources(result) == tracer.sources(args[0]):
        made_of(tracer, result, known_parts(tracer, args[0]))


@_follows(
    """relu relu6 leaky_relu elu selu celu gelu silu mish hardtanh hardswish hardsigmoid sigmoid tanh softplus softsign
    exp log log1p sqrt rsqrt square abs pow __pow__ reciprocal erf sin cos sign round clamp""",
    *functions("inverse pinverse matrix_exp"),
    *(getattr(torch.linalg, name) for name in ("inv", "pinv", "solve", "matrix_exp", "matrix_power")),
)
def _function(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    """An elementwise function, or one of a square matrix: it keeps the dimensions of a weight."""
    if (tracer.value(result) or CONSTANT).params:
        made_of(tracer, result, [part._replace(linear=False) for part in next(_alike(tracer, args, result), ())])


@_follows("mul multiply __mul__ __rmul__ div divide true_divide __truediv__")
def _scaled(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    """An elementwise product: the factor with more dimensions is the weight, and the other scales it.

    Of two alike it is the one that is linear in its parameters, that is made of fewer of them, that is trained, or that
    comes first. If each has a dimension of its own, as in an outer product, both are weights. Activations modulate a
    weight that has a dimension of its own, and others scale activations.
    """
    if not (tracer.value(result) or CONSTANT).params:
        return
    factors = [(tensor, known_parts(tracer, tensor)) for tensor in args[:2] if isinstance(tensor, Tensor)]
    wide = [{dim - tensor.dim() for dim, size in enumerate(tensor.shape) if size > 1} for tensor, _ in factors]
    for (tensor, parts), own, others in zip(factors, wide, wide[::-1], strict=True):
        if tracer.sources(tensor) and not parts and others <= own:
            return
    if len(factors) > 1 and not (wide[0] <= wide[1] or wide[1] <= wide[0]):
        made_of(tracer, result, _broadcast([part for _, parts in factors for part in parts], result))
        return

    def preference(at: int) -> tuple[Any, ...]:
        parts = factors[at][1]
        trained = any(tracer.parameters[part.name].requires_grad for part in parts)
        return -len(wide[at]), not parts, not all(part.linear for part in parts), len(parts), not trained

    weight, parts = factors[min(range(len(factors)), key=preference)]
    names = {name for tensor, _ in factors for name in (tracer.value(tensor) or CONSTANT).params}
    tracer.scaling |= names.difference([part.name for part in parts] or (tracer.value(weight) or CONSTANT).params)
    made_of(tracer, result, _broadcast(parts, result))


@_follows("add __add__ __radd__ sub subtract __sub__ __rsub__ rsub where")
def _sum(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    """A sum, in which a parameter that enters another term through a function may be a mask or the size of noise."""
    parts = [part for parts in _alike(tracer, args, result) for part in parts]
    made_of(tracer, result, [part for part in parts if part.linear] or parts)


def _alike(tracer: ValueTable, operands: Sequence[Any], result: Any) -> Iterator[tuple[Part, ...]]:
    """The parts of each operand of the result's shape, unless an activation is among them."""
    tensors = [(tensor, known_parts(tracer, tensor)) for tensor in operands if isinstance(tensor, Tensor)]
    if not any(tracer.sources(tensor) and not parts for tensor, parts in tensors):
        yield from (parts for tensor, parts in tensors if parts and tensor.shape == result.shape)


@_follows("sum mean")
def _summed(tracer: ValueTable, _: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
    """A sum over dimensions."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim", ())
    gone = {dim % args[0].dim() for dim in ((dims,) if isinstance(dims, int) else dims or ())}
    if len(gone) == args[0].dim() - result.dim():
        made_of(tracer, result, [without(part, gone) for part in known_parts(tracer, args[0])])


@_follows("kron")
def _kronecker(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    """A Kronecker product, of which each factor is applied to dimensions of its own."""
    if not tracer.sources(result):
        made_of(tracer, result, _broadcast([part for tensor in args for part in parts_of(tracer, tensor)], result))


@_follows("diag diag_embed")
def _diagonal(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    """A diagonal matrix, which scales what it is multiplied with."""
    tracer.scaling.update((tracer.value(result) or CONSTANT).params if result.dim() > args[0].dim() else ())


@_follows("cat concat concatenate block_diag")
def _concatenation(tracer: ValueTable, func: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    if not tracer.sources(result):
        tensors = args if func is torch.block_diag else args[0]
        made_of(tracer, result, [part for tensor in tensors for part in parts_of(tracer, tensor)])


@_follows("stack")
def _stack(tracer: ValueTable, _: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
    if not tracer.sources(result):
        dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.dim()
        parts = [part for tensor in args[0] for part in parts_of(tracer, tensor)]
        made_of(tracer, result, [part._replace(axes=(*part.axes[:dim], (), *part.axes[dim:])) for part in parts])


# --- writing ---------------------------------------------------------------------------------------------------------


@_follows("add_ sub_ __iadd__ __isub__ index_copy index_copy_ index_add index_add_ scatter scatter_ slice_scatter")
def _written(tracer: ValueTable, _: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
    """A tensor of the same dimensions is added to a weight, or written into it."""
    if not tracer.sources(result):
        given = [tensor for tensor in tensors_in((args[1:], kwargs)) if tensor.dim() == result.dim()]
        _add_to(tracer, args[0], result, [part for tensor in given for part in known_parts(tracer, tensor)])


@_follows("__setitem__ index_put index_put_")
def _assigned(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    """A part of a weight is overwritten."""
    target, index, source, *_ = args
    indices = list(index) if isinstance(index, tuple) else [index]
    if any(at is None or (isinstance(at, Tensor) and at.dtype == torch.bool) for at in indices):
        return
    if (at := next((at for at, index in enumerate(indices) if index is ...), None)) is not None:
        indices[at : at + 1] = [slice(None)] * (target.dim() - len(indices) + 1)
    indices += [slice(None)] * (target.dim() - len(indices))
    runs: list[int | None] = []  # for each dimension of the weight that of the values; tensors of indices share one
    count, listed = 0, None
    for index in indices:
        if isinstance(index, int):
            runs.append(None)
        elif isinstance(index, (Tensor, list)) and listed is not None:
            runs.append(listed)
        else:
            listed = count if isinstance(index, (Tensor, list)) else listed
            runs.append(count)
            count += 1
    if isinstance(source, Tensor) and source.dim() == count:
        parts = [
            part._replace(axes=tuple(() if run is None else part.axes[run] for run in runs))
            for part in known_parts(tracer, source)
        ]
        _add_to(tracer, target, target if result is None else result, parts)


def _add_to(tracer: ValueTable, target: Tensor, result: Tensor, parts: Iterable[Part]) -> None:
    """Notes what a tensor is made of that was made of the parts of ``target`` before."""
    if tracer.sources(result):
        return
    noted = tracer.known(target).parts if target is result else None
    before = known_parts(tracer, target) if noted is None else noted[0]
    made_of(tracer, result, [*before, *parts])
