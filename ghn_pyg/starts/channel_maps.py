"""Which channel of a teacher stands for which channel of a student."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor

from .axes import Axis, atoms
from .axis_notes import Dimension

Entries = frozenset[tuple[Axis, int]]  # of axes of which one entry was selected, such as queries among three


@dataclasses.dataclass(frozen=True)
class ChannelMap:
    """Which of a teacher's channels stands for each channel of a student.

    Args:
        index: The teacher's channel.
        new: Whether the student's channel comes from a layer that the teacher does not have; nothing reads it then.
    """

    index: Tensor
    new: Tensor


@dataclasses.dataclass
class Mapper:
    """Makes the maps of dimensions out of those of their axes.

    Args:
        choose: Chooses so many channels of one axis of the teacher.
        part: The part of a teacher's concatenation for a part of a student's, and whether it is new.
    """

    choose: Callable[[Axis, int], Tensor]
    part: Callable[[Axis, Sequence[Axis]], tuple[int, bool] | None]

    def dimension(self, ours: Dimension, size: int, theirs: Dimension, their_size: int) -> ChannelMap:
        """The map of a dimension, which is a product of axes on both sides."""
        mine, its = atoms(ours), atoms(theirs)
        if len(mine) != len(its):
            return _known(evenly(their_size, size))
        result = _known(torch.zeros(1, dtype=torch.long))
        for axis, other in zip(mine, its, strict=True):
            factor = self._axis(axis, other)
            index = (result.index[:, None] * other.size + factor.index).flatten()
            result = ChannelMap(index, (result.new[:, None] | factor.new).flatten())
        return result

    def _axis(self, mine: Axis, its: Axis) -> ChannelMap:
        if not (mine.parts and its.parts):
            return _known(self.choose(its, mine.size))
        starts = [sum(part.size for part in its.parts[:j]) for j in range(len(its.parts))]
        maps = []
        for i, part in enumerate(mine.parts):
            same = len(mine.parts) == len(its.parts)
            found = (i, False) if same else self.part(part, its.parts)
            if found is None:
                return _known(self.choose(its, mine.size))
            j, new = found
            other = its.parts[j]
            inner = self.dimension((part,), part.size, (other,), other.size)
            maps.append(ChannelMap(starts[j] + inner.index, inner.new | new))
        return ChannelMap(torch.cat([each.index for each in maps]), torch.cat([each.new for each in maps]))

    def logit_scale(
        self, ours: Dimension, theirs: Dimension, contracted: Mapping[Axis, AbstractSet[Entries]]
    ) -> Tensor:
        r"""Factors that keep the logits of attention, which are divided by the root of a head's width.

        The copies of a channel of queries and keys count as one: :math:`c^{-1/2}` for `c` copies, times the fourth root
        of the ratio of widths.
        """
        mine, its = atoms(ours), atoms(theirs)
        factor = torch.ones([axis.size for axis in mine], dtype=torch.double)
        if len(mine) != len(its):
            return factor.flatten()
        for i, (axis, other) in enumerate(zip(mine, its, strict=True)):
            shape = [-1 if j == i else 1 for j in range(len(mine))]
            if axis.parts and len(axis.parts) == len(other.parts):
                pairs = zip(axis.parts, other.parts, strict=True)
                parts = [self.logit_scale((one,), (two,), contracted) for one, two in pairs]
                factor = factor * torch.cat(parts).view(shape)
            for entries in contracted.get(axis, ()) if axis.size != other.size else ():
                copies = counts(self._axis(axis, other)).double()
                scale = (copies.pow(-0.5) * (axis.size / other.size) ** 0.25).view(shape).expand_as(factor)
                for j, entry in enumerate(mine):  # only of queries and keys, where values are beside them
                    if chosen := [index for each, index in entries if each.root is entry]:
                        among = torch.zeros(entry.size, dtype=torch.bool)
                        among[chosen] = True
                        scale = torch.where(among.view([-1 if k == j else 1 for k in range(len(mine))]), scale, 1.0)
                factor = factor * scale
        return factor.flatten()


def _known(index: Tensor) -> ChannelMap:
    return ChannelMap(index, torch.zeros_like(index, dtype=torch.bool))


def evenly(size: int, count: int) -> Tensor:
    """So many of ``size`` indices, evenly spaced: each several times where there are fewer."""
    return torch.arange(count) * size // count


def counts(channels: ChannelMap) -> Tensor:
    """How many channels stand for the same channel of the teacher, for each of them; new ones do not count."""
    return torch.bincount(channels.index[~channels.new], minlength=int(channels.index.max()) + 1)[channels.index]


def shares(channels: ChannelMap, shape: Sequence[int], dim: int, noise: float, generator: torch.Generator) -> Tensor:
    """Factors that sum to 1 over the copies of a channel, with noise: they are read as one, and learn apart."""
    index, count = channels.index, counts(channels)
    size = (-1,) + (1,) * (len(shape) - 1)
    if int(count.max()) == 1:
        return (~channels.new).float().view(size).movedim(0, dim)
    read = ((count > 1) & ~channels.new).view(size)
    draws = torch.randn(shape, generator=generator).movedim(dim, 0) * read
    sums = torch.zeros(int(index.max()) + 1, *draws.shape[1:]).index_add_(0, index, draws)
    count = count.clamp(min=1).view(size)
    return ((1 + noise * (draws - sums[index] / count) * read) / count * ~channels.new.view(size)).movedim(0, dim)
