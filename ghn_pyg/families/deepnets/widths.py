"""Widths and head sizes that networks are given anew for every use while meta-training (GHN-2, arXiv 2110.13100)."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

from ...utils.fields import check_flags
from .architecture import Architecture
from .genotype import LARGE_KERNELS
from .layout import count_parameters, is_large
from .operations import HEADS
from .sampling import Numbers

_NARROW: Final = 64
_FEW_HEADS: Final = 4


class Bound(NamedTuple):
    """Networks over either number get one of the few smallest widths.

    Args:
        parameters: Number of parameters at a width of 32, for images of 32 pixels.
        cells: Number of cells.
        choices: How many widths they may have.
    """

    parameters: int
    cells: int
    choices: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class WidthRule:
    """Which widths and head sizes a network may have, so that its training fits into memory.

    The first of the ``bounds`` that a network exceeds tells how many of the smallest widths it may have; the first
    one also holds for networks without a global average or with convolutions of 5×5 and 7×7. Networks within all
    bounds may have any width and, up to a width of 64, any head size; others have one of the four smallest.

    Args:
        widths: Widths, ascending.
        hidden: Sizes of the hidden layer of a classifier of two layers, ascending.
        bounds: From the strictest to the loosest.
        strides: Whether networks within all bounds whose stem is small may stride by 2 or 4 on large images.

    Raises:
        ValueError: If there is nothing to choose from, widths or sizes are no ascending integers, widths no
            multiples of 8, or bounds no positive integers.
    """

    widths: tuple[int, ...] = tuple(range(32, 129, 16))
    hidden: tuple[int, ...] = tuple(range(64, 513, 64))
    bounds: tuple[Bound, ...] = (Bound(800_000, 12, 1), Bound(400_000, 10, 2), Bound(200_000, 8, 3))
    strides: bool = False

    def __post_init__(self) -> None:
        for name in ("widths", "hidden"):
            values = getattr(self, name)
            if not _whole(values) or list(values) != sorted(set(values)):
                raise ValueError(f"{name} expected ascending positive integers, got {values!r:.80}")
        if any(width % HEADS for width in self.widths):
            raise ValueError(
                f"widths expected multiples of {HEADS}, the heads of networks with attention, got {self.widths!r:.80}"
            )
        if not all(isinstance(bound, Bound) and _whole(bound) for bound in self.bounds):
            raise ValueError(f"bounds expected three positive integers each, got {self.bounds!r:.80}")
        check_flags(self, ("strides",))

    def draw(self, architecture: Architecture, numbers: Numbers) -> Architecture:
        """The architecture with a width, a head size and a stride that are drawn for one use.

        Example:
            >>> from ghn_pyg.families.deepnets.genotype import DARTS
            >>> CIFAR.draw(Architecture(genotype=DARTS, cells=20), Numbers(0)).width
            32
        """
        choices = self.choices(architecture)
        width = self.widths[numbers.below(len(self.widths) if choices is None else min(choices, len(self.widths)))]
        many_heads = choices is None and width <= _NARROW
        hidden = self.hidden[numbers.below(len(self.hidden) if many_heads else min(_FEW_HEADS, len(self.hidden)))]
        stem = architecture.stem_type == 0 and architecture.stem_pool and architecture.global_average
        stride = 2 + 2 * numbers.below(2) if self.strides and choices is None and stem else 4
        return dataclasses.replace(architecture, width=width, hidden=hidden, imagenet_stride=stride)

    def choices(self, architecture: Architecture) -> int | None:
        """How many of the smallest widths a network may have; ``None`` for all."""
        demanding = not architecture.global_average or not LARGE_KERNELS.isdisjoint(architecture.genotype.operations)
        parameters = count_parameters(architecture, width=32, hidden=256)
        for bound in self.bounds:
            if demanding or parameters > bound.parameters or architecture.cells > bound.cells:
                return bound.choices
        return None


def _whole(values: tuple[int, ...]) -> bool:
    return len(values) > 0 and all(type(value) is int and value > 0 for value in values)


CIFAR: Final = WidthRule()
"""The published rule for images of 32 pixels."""

IMAGENET: Final = WidthRule(bounds=(Bound(2_000_000, 14, 1), Bound(400_000, 10, 4), Bound(200_000, 8, 5)), strides=True)
"""The published rule for images of 224 pixels."""

WIDE_FACTORS: Final = (4, 2)
"""By how much the networks of the split ``wide`` are wider than others, for small and for large images."""


def evaluation_width(split: str, image_size: int, width: int = 32) -> int:
    """The width at which the networks of a split are evaluated.

    Example:
        >>> evaluation_width("wide", 32), evaluation_width("wide", 224), evaluation_width("test", 32)
        (128, 64, 32)
    """
    return width * WIDE_FACTORS[is_large(image_size)] if split == "wide" else width
