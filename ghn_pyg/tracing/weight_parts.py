"""Which parameters a weight is made of, and along which of its dimensions each of them runs.

What a layer takes for its weight may be a parameter, a view of one, several that are joined or added, or a product. As
``x (B A)`` is ``(x B) A``, each matrix of a product is one of a layer itself: what it does not share with the product
is what it hands to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph.arch_data import ParamSpec
from ..utils.nested_tensors import tensors_in
from .values import ValueTable

Axes = tuple[tuple[int, ...], ...]
"""For each dimension of a weight the dimensions of a parameter that run along it."""


class Part(NamedTuple):
    """A parameter that a weight is made of."""

    name: str
    axes: Axes


Follower = Callable[[ValueTable, Callable[..., Any], Sequence[Any], dict[str, Any], Any], None]


def _functions(names: str) -> frozenset[Any]:
    spaces = (torch, Tensor)
    return frozenset(getattr(space, name) for name in names.split() for space in spaces if hasattr(space, name))


_ATTRIBUTES: Final[frozenset[Any]] = frozenset(getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH"))
_RESHAPING: Final = _functions("view view_as reshape reshape_as flatten unflatten ravel")
_VIEWS: Final = _ATTRIBUTES.union(
    _RESHAPING,
    _functions(
        """transpose swapaxes swapdims permute t adjoint movedim moveaxis unsqueeze squeeze chunk split tensor_split
        narrow select unbind __getitem__ expand expand_as"""
    ),
)
_LINEAR: Final = frozenset((Tensor.data.__get__,)) | _functions(  # type: ignore[attr-defined]
    """contiguous clone detach to type type_as float double half bfloat16 neg __neg__ flip roll tril triu masked_fill
    mul multiply __mul__ __rmul__ div divide true_divide __truediv__"""
)
_RESIZED: Final[frozenset[Any]] = frozenset((F.pad, F.interpolate, torch.index_select, Tensor.index_select))
_SUMS: Final = _functions("add __add__ __radd__ sub subtract __sub__")
_CONCATENATIONS: Final = _functions("cat concat concatenate")


def parts_of(tracer: ValueTable, weight: Tensor) -> tuple[Part, ...]:
    """The parameters that a weight is made of; of one that is computed otherwise, the one that matters."""
    if found := _known(tracer, weight):
        return found
    name = tracer.parameter(weight)
    return () if name is None else (Part(name, _matching(tuple(tracer.parameters[name].shape), tuple(weight.shape))),)


def _known(tracer: ValueTable, tensor: Any) -> tuple[Part, ...]:
    """The parts of a tensor into which nothing was written since they were noted."""
    if not isinstance(tensor, Tensor):
        return ()
    if (name := tracer.own_name(tensor)) is not None:
        return (Part(name, tuple((dim,) for dim in range(tensor.dim()))),)
    if (noted := tracer.origin(tensor).parts) is None:
        return ()
    parts, shape, value = noted
    return parts if tensor.shape == shape and tracer.value(tensor) == value else ()


def _matching(stored: tuple[int, ...], used: tuple[int, ...]) -> Axes:
    """Dimensions of a parameter that a tensor computed from it seems to have, by their sizes."""
    rank, lead = len(stored), len(used) - 2
    if used == stored:
        return tuple((dim,) for dim in range(rank))
    if not 2 <= rank <= len(used) or sorted(used[-2:]) != sorted(stored[-2:]):
        return ((),) * len(used)
    last = ((rank - 2,), (rank - 1,))
    leading: Axes = tuple((dim - lead + rank - 2,) if dim - lead + rank >= 2 else () for dim in range(lead))
    return leading + (last if used[-2:] == stored[-2:] else last[::-1])


def stacked_in(part: Part, shape: Sequence[int]) -> int:
    """How many leading dimensions of a parameter count weights of which this is one."""
    lead = len(shape) - len(part.axes)
    return lead if lead > 0 and part.axes == tuple((dim,) for dim in range(lead, len(shape))) else 0


def specification(tracer: ValueTable, part: Part, roles: str) -> ParamSpec | None:
    """How a part of a weight is decoded, whose dimensions have these roles; ``None`` if it is no matrix.

    Args:
        tracer: Knows the parameters.
        part: The part.
        roles: For each dimension of the weight ``o`` (of the output), ``i`` (of the input) or ``s`` (of a stack).
    """
    shape = tuple(tracer.parameters[part.name].shape)
    axes = _axes(part, roles, shape)
    if not {"o", "i"} <= set(axes):
        return None
    stacked = len(axes) - 2
    for layout, last in (("out_in", "oi"), ("in_out", "io")):
        if axes == "s" * stacked + last:
            return ParamSpec(part.name, shape, "weight", layout, stacked=stacked)  # type: ignore[arg-type]
    if len(roles) == 2 and axes == "o" + "i" * (stacked + 1):  # a convolution's weight, flattened
        return ParamSpec(part.name, shape, "weight")
    return ParamSpec(part.name, shape, "weight", axes=axes)


def _axes(part: Part, roles: str, shape: Sequence[int]) -> str:
    """What each dimension of a parameter is: one that the weight does not have is what a matrix lacks, or a stack."""
    pairs = {(dim, role) for dims, role in zip(part.axes, roles, strict=True) for dim in dims}
    found = dict(pairs)
    if len(found) < len(pairs):  # a dimension that was split into such of several roles
        return ""
    rest = next((role for role in "io" if role not in found.values()), "s")
    axes = ""
    for dim, size in enumerate(shape):
        axes += found.get(dim) or (rest if size > 1 or rest != "s" else axes[-1:] or rest)
    return axes


# --- following what is done with parameters --------------------------------------------------------------------------


def follow(
    tracer: ValueTable, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: Any
) -> None:
    """Notes which parameters the result of a function is made of."""
    if args and (follower := FOLLOWERS.get(func)) is not None:
        follower(tracer, func, args, kwargs, result)


def made_of(tracer: ValueTable, result: Any, parts: Iterable[Part]) -> None:
    """Notes the parts of a tensor, each parameter once."""
    if isinstance(result, Tensor) and (found := {part.name: part for part in parts}):
        tracer.origin(result).parts = (tuple(found.values()), result.shape, tracer.value(result))


def _view(
    tracer: ValueTable, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: Any
) -> None:
    """Views: what becomes of the dimensions is seen from their strides in a stand-in."""
    if not (parts := _known(tracer, args[0])):
        return
    probe = _probe(args[0], func in _RESHAPING)
    rest, gathered = _without_gather(args[1:]) if func is Tensor.__getitem__ else (args[1:], 0)
    if rest is None:
        return
    for tensor, view in zip(tensors_in([result]), tensors_in([func(probe, *rest, **kwargs)]), strict=True):
        if view._base is not None:
            dims = _dimensions(probe, view)
            turned = [_turned(part, tuple(tracer.parameters[part.name].shape), dims, view.shape) for part in parts]
            made_of(tracer, tensor, [Part(part.name, ((),) * gathered + part.axes) for part in turned])


def _probe(tensor: Tensor, whole: bool) -> Tensor:
    """A stand-in without data, in one piece where its dimensions may be joined, else without equal strides."""
    strides = [1]
    for size in tensor.shape[:0:-1]:
        strides.append(strides[-1] * (size if whole else max(size, 2)))
    return torch.empty_strided(tensor.shape, strides[: tensor.dim()][::-1], dtype=tensor.dtype, device="meta")


def _turned(part: Part, stored: Sequence[int], dims: Axes, sizes: Sequence[int]) -> Part:
    """A part of a weight in a view of it, whose dimensions run along ``dims`` of the weight."""
    axes = [tuple(axis for dim in run for axis in part.axes[dim]) for run in dims]
    for dim in range(len(part.axes)):
        split = [at for at, run in enumerate(dims) if run == (dim,)]
        apart = [sizes[at] for at in split] == [stored[axis] for axis in part.axes[dim]]
        if apart:  # what was joined before
            for at, axis in zip(split, part.axes[dim], strict=True):
                axes[at] = (axis,)
    return Part(part.name, tuple(axes))


def _without_gather(args: Sequence[Any]) -> tuple[Sequence[Any] | None, int]:
    """The arguments of an indexing that takes one matrix where it gathers many, and how many dimensions these have."""
    places = args[0] if isinstance(args[0], tuple) else (args[0],)
    first, others = places[:1], places[1:]
    if any(isinstance(place, (Tensor, list)) for place in others):
        return None, 0
    if not (first and isinstance(first[0], Tensor)):
        return args, 0
    known = not first[0].is_floating_point() and first[0].dtype != torch.bool
    return ([(0, *others)] if known else None), first[0].dim()


def _dimensions(probe: Tensor, view: Tensor) -> Axes:
    """For each dimension of a view those of its base that it runs along."""
    steps = list(zip(probe.shape, probe.stride(), strict=True))
    found = [
        tuple(dim for dim, (n, s) in enumerate(steps) if n > 1 and 0 < stride < s * n and s <= stride * (size - 1))
        for size, stride in zip(view.shape, view.stride(), strict=True)
    ]
    for at, (size, stride) in enumerate(zip(view.shape, view.stride(), strict=True)):
        if size == 1:  # runs along one that it takes a single element of, or that has no more
            same = [dim for dim, (_, s) in enumerate(steps) if s == stride and not any(dim in dims for dims in found)]
            found[at] = tuple(same[:1])
    return tuple(found)


def _forget(tracer: ValueTable, _: Any, __: Sequence[Any], ___: dict[str, Any], result: Any) -> None:
    """A change of the shape in place."""
    tracer.origin(result).parts = None


def _resized(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    made_of(tracer, result, _known(tracer, args[0]))


def _linear(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    """What keeps the dimensions of a weight, and is linear in it."""
    made_of(tracer, result, next(_alike(tracer, args, result), ()))


def _sum(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    made_of(tracer, result, [part for parts in _alike(tracer, args, result) for part in parts])


def _alike(tracer: ValueTable, operands: Sequence[Any], result: Any) -> Iterator[tuple[Part, ...]]:
    """The parts of each operand of the result's shape, unless an activation is among them."""
    tensors = [(tensor, _known(tracer, tensor)) for tensor in operands if isinstance(tensor, Tensor)]
    if not any(tracer.sources(tensor) and not parts for tensor, parts in tensors):
        yield from (parts for tensor, parts in tensors if parts and tensor.shape == result.shape)


def _concatenation(tracer: ValueTable, _: Any, args: Sequence[Any], __: Any, result: Any) -> None:
    if not tracer.sources(result):
        made_of(tracer, result, [part for tensor in args[0] for part in parts_of(tracer, tensor)])


def _stack(tracer: ValueTable, _: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
    if not tracer.sources(result):
        dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.dim()
        parts = [part for tensor in args[0] for part in parts_of(tracer, tensor)]
        made_of(tracer, result, [Part(name, (*axes[:dim], (), *axes[dim:])) for name, axes in parts])


FOLLOWERS: Final[dict[Callable[..., Any], Follower]] = {
    **dict.fromkeys(_VIEWS, _view),
    **dict.fromkeys(_LINEAR, _linear),
    **dict.fromkeys(_RESIZED, _resized),
    **dict.fromkeys(_SUMS, _sum),
    **dict.fromkeys(_CONCATENATIONS, _concatenation),
    torch.stack: _stack,
    **dict.fromkeys(_functions("t_ transpose_ swapaxes_ swapdims_ squeeze_ unsqueeze_"), _forget),
}
