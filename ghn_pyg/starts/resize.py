"""Makes a student's tensors out of their counterparts in a teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from .align import Counterpart
from .axes import Axis, atoms
from .axis_notes import Axes, Dimension
from .channel_maps import Entries, Mapper, counts, evenly, shares

_NOISE: Final = 0.5  # of the shares of copied channels
_STATISTICS: Final = ("running_mean", "running_var")
_RIDGE: Final = 1e-2  # of the mean second moment


@dataclasses.dataclass
class Resizer:
    """Makes a student's tensors.

    Args:
        student: Its parameters and buffers by name.
        teacher: The teacher's.
        counterparts: The teacher's tensor for each of the student's that has one.
        ours: The student's axes.
        theirs: The teacher's axes.
        buffers: Names of the student's buffers. Those that are no statistics of norms are not resized: tables of
            positions or masks belong to a size.
    """

    student: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor]
    counterparts: Mapping[str, Counterpart]
    ours: Axes
    theirs: Axes
    buffers: Collection[str] = ()

    def __post_init__(self) -> None:
        self._makers = _makers(self.ours), _makers(self.theirs)
        self._mapper = Mapper(self._choose, self._part)
        self._generator = torch.Generator().manual_seed(0)
        self._importance: dict[Axis, Tensor] | None = None
        self._divisors: dict[str, Tensor] = {}
        self._contracted: dict[Axis, set[Entries]] = {}
        for axis, entries in self.ours.contracted:
            self._contracted.setdefault(axis.root, set()).add(entries)

    def values(self) -> dict[str, Tensor]:
        """The new tensors by name."""
        made = {name: self._value(name, counterpart.name) for name, counterpart in self.counterparts.items()}
        values = {name: value for name, value in made.items() if value is not None}
        for name, divisor in self._divisors.items():
            if name in values and len(values[name]) == len(divisor):
                values[name] = values[name] / divisor.view(-1, *[1] * (values[name].dim() - 1))
        return values

    def identities(self, model: nn.Module, values: dict[str, Tensor]) -> frozenset[str]:
        """Makes new blocks and layers pass on their input; returns the parameters that do it."""
        new = {name for name, counterpart in self.counterparts.items() if counterpart.new and name in values}
        found: set[str] = set()
        for residual in self.ours.residuals:
            if not (residual.tail & values.keys()) - new:  # its last layer has no counterpart of its own
                found |= residual.tail
        values |= {name: torch.zeros_like(self.student[name], device="cpu") for name in found}
        branches = frozenset().union(*(residual.inside for residual in self.ours.residuals))
        for name in sorted((self.ours.square & new) - branches, key=self.ours.order.__getitem__):
            self._pass_on(model, name, values)
            found.add(name)
        return frozenset(found)

    def _pass_on(self, model: nn.Module, name: str, values: dict[str, Tensor]) -> None:
        """Makes a new layer of a chain the identity, and the batch norm behind it.

        The norm gets the statistics of its input, a rectified normal variable of the mean and deviation that the norm
        before has.
        """
        weight, module = values[name], name.rpartition(".")[0]
        nn.init.dirac_(weight) if weight.dim() > 2 else nn.init.eye_(weight)
        if f"{module}.bias" in values:
            values[f"{module}.bias"].zero_()
        in_order = sorted(self.ours.order, key=self.ours.order.__getitem__)
        used = list(dict.fromkeys(each.rpartition(".")[0] for each in in_order))
        place = used.index(module)
        near = (used[place - 1], *used[place + 1 : place + 2])
        norms = [each for each in near if {f"{each}.running_var", f"{each}.weight"} <= values.keys()]
        if len(norms) < 2:
            return
        gain, bias = values[f"{norms[0]}.weight"].abs().clamp(min=1e-6), values[f"{norms[0]}.bias"]
        normal = torch.distributions.Normal(0.0, 1.0)
        share, density = normal.cdf(bias / gain), normal.log_prob(bias / gain).exp()
        mean = bias * share + gain * density
        variance = ((bias**2 + gain**2) * share + bias * gain * density - mean**2).clamp(min=0)
        deviation = (variance + model.get_submodule(norms[1]).eps).sqrt()
        new = {"running_mean": mean, "running_var": variance, "weight": deviation, "bias": mean}
        values |= {f"{norms[1]}.{key}": value.clone() for key, value in new.items()}

    # --- one tensor --------------------------------------------------------------------------------------------------

    def _value(self, name: str, counterpart: str) -> Tensor | None:
        """The new tensor; None for a layer of other classes."""
        tensor, value = self.student[name], self.teacher[counterpart].detach().cpu()
        if not tensor.is_floating_point() or (name in self.buffers and name.rpartition(".")[2] not in _STATISTICS):
            return value if value.shape == tensor.shape and value.dtype == tensor.dtype else None
        if value.dim() != tensor.dim():  # a matrix for a kernel of one place, or the other way round
            value = value.view(*value.shape[:2], *[1] * (tensor.dim() - 2))
        ours, theirs = self.ours.dimensions[name], (*self.theirs.dimensions[counterpart], *[()] * 3)
        for dim, size in enumerate(tensor.shape):
            mine, its, before, owner = ours[dim], theirs[dim], value.shape[dim], (name, dim)
            if owner in self.ours.kernel:
                value = _fit_kernel(value, dim, size)
            elif before != size and self.ours.output.intersection(atoms(mine)):
                return None
            elif owner in self.ours.table:
                value = self._rows(value, dim, size)
            elif mine and all(axis.place or any(part.place for part in axis.parts) for axis in atoms(mine)):
                value = _interpolate(value, dim, mine, its, size)
            else:
                value = self._channels(value, counterpart, owner, mine, its, size)
        return value.to(tensor.dtype)

    def _channels(
        self, value: Tensor, counterpart: str, owner: tuple[str, int], mine: Dimension, its: Dimension, size: int
    ) -> Tensor:
        """Copies or chooses channels, in one dimension."""
        dim = owner[1]
        before = value.shape[dim]
        channels = self._mapper.dimension(mine, size, its, before)
        moments = self.theirs.moments.get((counterpart, dim))
        if owner in self.ours.read and size < before and moments is not None and len(moments) == before:
            return _take_over(value, dim, channels.index, moments)
        value = value.index_select(dim, channels.index)
        if owner in self.ours.scaled:
            self._divisors |= dict.fromkeys(self.ours.scaled[owner], counts(channels))
        elif owner in self.ours.read:
            value = value * shares(channels, value.shape, dim, _NOISE, self._generator)
        elif size != before:
            scale = self._mapper.logit_scale(mine, its, self._contracted)
            value = value * scale.view(-1, *[1] * (value.dim() - dim - 1)).to(value.dtype)
        return value

    def _rows(self, value: Tensor, dim: int, size: int) -> Tensor:
        """A table keeps its first rows; new ones are drawn with the deviation of the others."""
        more = size - value.shape[dim]
        if more <= 0:
            return value.narrow(dim, 0, size)
        shape = [more if i == dim else each for i, each in enumerate(value.shape)]
        return torch.cat([value, torch.randn(shape, generator=self._generator) * value.std()], dim)

    # --- channels ----------------------------------------------------------------------------------------------------

    def _choose(self, axis: Axis, count: int) -> Tensor:
        """Which of a teacher's channels: all, about equally often, or the most important ones."""
        if count >= axis.size:
            return evenly(axis.size, count)
        if self._importance is None:
            self._importance = self._measure_importance()
        importance = self._importance.get(axis.root)
        return evenly(axis.size, count) if importance is None else importance.topk(count).indices.sort().values

    def _measure_importance(self) -> dict[Axis, Tensor]:
        """The squares of the weights that read each channel, times those of the gains that scale it."""
        read: dict[Axis, Any] = {}
        gains: dict[Axis, Any] = {}
        for name, dimensions in self.theirs.dimensions.items():
            tensor = self.teacher[name].detach().cpu()
            for dim, dimension in enumerate(dimensions if tensor.is_floating_point() else ()):
                gain = tensor.dim() == 1 and name.rpartition(".")[2] == "weight"
                flat, found = atoms(dimension), read if (name, dim) in self.theirs.read else gains if gain else None
                if found is None or not flat:
                    continue
                squares = tensor.double().square().movedim(dim, 0).reshape(tensor.shape[dim], -1).sum(1)
                squares = squares.view([axis.size for axis in flat])
                for i, axis in enumerate(flat):
                    one = squares.movedim(i, 0).flatten(1).sum(1) if len(flat) > 1 else squares
                    found[axis] = found.get(axis, 0) + one / one.mean().clamp(min=1e-30)
        return {axis: squares * gains.get(axis, 1) for axis, squares in read.items()}

    def _part(self, mine: Axis, parts: Sequence[Axis]) -> tuple[int, bool] | None:
        """The part of a teacher's concatenation that comes from the counterpart of the layer that makes this part."""
        for name in self._makers[0].get(mine.root, ()):
            maker = self.counterparts.get(name)
            for j, part in enumerate(parts):
                if maker is not None and maker.name in self._makers[1].get(part.root, ()):
                    return j, maker.new
        return None


def _makers(axes: Axes) -> dict[Axis, list[str]]:
    """The parameters that make the channels of an axis, in the order of use."""
    makers: dict[Axis, list[str]] = {}
    for name in sorted(axes.order, key=axes.order.__getitem__):
        for dim, dimension in enumerate(axes.dimensions[name]):
            for axis in atoms(dimension) if (name, dim) not in axes.read else ():
                makers.setdefault(axis, []).append(name)
    return makers


def _take_over(weight: Tensor, dim: int, kept: Tensor, moments: Tensor) -> Tensor:
    """Weights that read the kept channels alone, and come nearest to what all said: least squares with a ridge."""
    among = moments[kept][:, kept]
    ridge = _RIDGE * among.diagonal().mean().clamp(min=1e-30) * torch.eye(len(kept), dtype=among.dtype)
    mix = torch.linalg.solve(among + ridge, moments[kept]).to(weight.dtype)
    return torch.tensordot(weight, mix, ([dim], [1])).movedim(-1, dim)


def _fit_kernel(weight: Tensor, dim: int, size: int) -> Tensor:
    """Pads a dimension of a kernel with zeros on both sides, or takes its middle."""
    extra = size - weight.shape[dim]
    if extra <= 0:
        return weight.narrow(dim, -extra // 2, size)
    padding = [0, 0] * (weight.dim() - dim - 1) + [extra // 2, extra - extra // 2]
    return functional.pad(weight, padding)


def _interpolate(weight: Tensor, dim: int, ours: Dimension, theirs: Dimension, size: int) -> Tensor:
    """Interpolates places linearly, each factor of a dimension for itself: rows and columns, tokens before them."""
    mine, its = atoms(ours), atoms(theirs)
    if len(mine) == len(its) == 1 and mine[0].parts and len(mine[0].parts) == len(its[0].parts):
        pieces = weight.split([part.size for part in its[0].parts], dim)
        parts = zip(pieces, mine[0].parts, its[0].parts, strict=True)
        return torch.cat([_interpolate(piece, dim, (one,), (other,), one.size) for piece, one, other in parts], dim)
    if weight.shape[dim] == size:
        return weight
    factors, sizes = ([axis.size for axis in axes] for axes in (its, mine))
    if len(factors) != len(sizes):
        factors, sizes = [weight.shape[dim]], [size]
    last = weight.movedim(dim, -1)
    grid = last.reshape(-1, *factors)
    for axis, new in enumerate(sizes, 1):
        lines = grid.movedim(axis, -1)
        flat = functional.interpolate(lines.reshape(-1, 1, lines.shape[-1]), size=new, mode="linear")
        grid = flat.view(*lines.shape[:-1], new).movedim(-1, axis)
    return grid.reshape(*last.shape[:-1], size).movedim(-1, dim)
