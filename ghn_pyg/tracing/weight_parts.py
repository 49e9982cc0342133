"""Which parameters a weight is made of, and along which of its dimensions each of them runs.

The weight of a layer may be a parameter, a view of one, a concatenation or sum of several, or a product. As ``x (B A)``
is ``(x B) A``, each matrix of a product counts as a layer's weight itself. Of an elementwise product only one factor
does: the other scales it. ``weight_functions.py`` follows what is done with parameters before they reach a layer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..graph.arch_data import ParamSpec
from ..utils.compat import batch_dimension, unwrap_functorch
from .values import ValueTable

Axes = tuple[tuple[int, ...], ...]
"""For each dimension of a weight the dimensions of a parameter that run along it.

``~dim`` is a dimension that was summed over in a product, of which the other factor runs along the weight instead.
"""


class Part(NamedTuple):
    """A parameter that a weight is made of."""

    name: str
    axes: Axes
    linear: bool = True  # whether the weight is linear in it, or a product that it is a factor of


def parts_of(tracer: ValueTable, weight: Tensor) -> tuple[Part, ...]:
    """The parameters that a weight is made of; if computed in another way, the one of its shape or the largest."""
    if parts := known_parts(tracer, weight):
        return parts
    name = tracer.parameter(weight)
    if name is None or name in tracer.scaling:
        return ()
    return (Part(name, _matching(tuple(tracer.parameters[name].shape), tuple(weight.shape))),)


def known_parts(tracer: ValueTable, tensor: Any) -> tuple[Part, ...]:
    """The parts that were noted for a tensor, unless it was written to since."""
    if not isinstance(tensor, Tensor):
        return ()
    if (name := tracer.own_name(tensor)) is not None:
        return (Part(name, tuple((dim,) for dim in range(tensor.dim()))),)
    if (noted := tracer.known(tensor).parts) is not None:
        parts, shape, value = noted
        return parts if tensor.shape == shape and tracer.value(tensor) == value else ()
    if (wrapped := unwrap_functorch(tensor)) is not None:
        dim, parts = batch_dimension(tensor), known_parts(tracer, wrapped)
        return parts if dim is None else tuple(without(part, {dim}) for part in parts)
    return ()


def made_of(tracer: ValueTable, result: Any, parts: Iterable[Part]) -> None:
    """Notes the parts of a tensor, each parameter once: where it runs along the most dimensions."""
    by_name: dict[str, Part] = {}
    for part in parts:
        if (known := by_name.get(part.name)) is None or _along(part) >= _along(known):
            by_name[part.name] = part
    if isinstance(result, Tensor) and by_name:
        tracer.origin(result).parts = (tuple(by_name.values()), result.shape, tracer.value(result))


def _along(part: Part) -> int:
    """How many dimensions of the weight a parameter runs along by itself."""
    return sum(any(axis >= 0 for axis in axes) for axes in part.axes)


def runs_along(part: Part, count: int | None = None) -> bool:
    """Whether a part runs along any of the last ``count`` dimensions of a weight, by itself or by another factor.

    Coefficients of a sum of weights do not: the weights run along several dimensions.
    """
    last = part.axes[-count:] if count else part.axes
    summed = [axis for along in last for axis in along if axis < 0]
    return any(axis >= 0 for along in last for axis in along) or any(summed.count(axis) == 1 for axis in summed)


def is_split(part: Part, roles: str) -> bool:
    """Whether a dimension of a parameter runs along dimensions of a weight with different roles."""
    own = {(axis, role) for along, role in zip(part.axes, roles, strict=True) for axis in along if axis >= 0}
    return len({axis for axis, _ in own}) < len(own)


def without(part: Part, dims: Collection[int]) -> Part:
    """A part in a weight without some of its dimensions."""
    return part._replace(axes=tuple(along for dim, along in enumerate(part.axes) if dim not in dims))


def _matching(stored: tuple[int, ...], used: tuple[int, ...]) -> Axes:
    """Guesses by size which dimensions of a parameter run along those of a tensor that is computed from it."""
    rank, lead = len(stored), len(used) - 2
    if used == stored:
        return tuple((dim,) for dim in range(rank))
    if not 2 <= rank <= len(used) or sorted(used[-2:]) != sorted(stored[-2:]):
        return ((),) * len(used)
    last = ((rank - 2,), (rank - 1,))
    leading: Axes = tuple((dim - lead + rank - 2,) if dim - lead + rank >= 2 else () for dim in range(lead))
    return leading + (last if used[-2:] == stored[-2:] else last[::-1])


def stacked_in(part: Part, shape: Sequence[int]) -> int:
    """How many leading dimensions of a parameter index a stack of weights, of which the part is one."""
    lead = len(shape) - len(part.axes)
    return lead if lead > 0 and part.axes == tuple((dim,) for dim in range(lead, len(shape))) else 0


def specification(tracer: ValueTable, part: Part, roles: str) -> ParamSpec | None:
    """How to decode a part of a weight, whose dimensions are outputs, inputs or stacks; ``None`` if it is no matrix.

    ``roles`` has a letter for each dimension of the weight: ``o``, ``i`` or ``s``.
    """
    shape = tuple(tracer.parameters[part.name].shape)
    axes = _axes(part, roles, shape)
    if not {"o", "i"} <= set(axes) and axes != "i":  # a vector has one output
        return None
    stacked = len(axes) - 2
    for layout, last in (("out_in", "oi"), ("in_out", "io")):
        if axes == "s" * stacked + last:
            return ParamSpec(part.name, shape, "weight", layout, stacked=stacked)  # type: ignore[arg-type]
    if len(roles) == 2 and axes == "o" + "i" * (stacked + 1):  # a convolution's weight, flattened
        return ParamSpec(part.name, shape, "weight")
    return ParamSpec(part.name, shape, "weight", axes=axes)


def _axes(part: Part, roles: str, shape: Sequence[int]) -> str:
    """The role of each dimension of a parameter; one that the weight does not have is input or output, else a stack.

    One that was split is an input if any of its dimensions is: outputs among it enter the product that follows.
    """
    pairs = [(axis, role) for along, role in zip(part.axes, roles, strict=True) for axis in along]
    role_of = dict(sorted(((axis, role) for axis, role in pairs if axis >= 0), key=lambda pair: "soi".index(pair[1])))
    summed = {(~axis, role) for axis, role in pairs if axis < 0 and ~axis not in role_of}
    axes_summed = [axis for axis, _ in summed]
    role_of |= {axis: role for axis, role in summed if axes_summed.count(axis) == 1}
    if not role_of:
        return ""
    rest = next((role for role in "io" if role not in role_of.values()), "s")
    axes = ""
    for dim, size in enumerate(shape):
        axes += role_of.get(dim) or (rest if size > 1 or rest != "s" else axes[-1:] or rest)
    return axes
