"""Samples the widths and head sizes of networks, anew for every use in meta-training (GHN-2, arXiv 2110.13100)."""

from __future__ import annotations

from typing import Annotated, Any, Final, NamedTuple

from pydantic import Field, PositiveInt, field_validator, model_validator

from ...utils.config import Config
from ...utils.suggest import choice
from .architecture import Architecture
from .genotype import LARGE_KERNELS
from .network_plan import count_parameters, is_large
from .operations import HEADS
from .portable_random import PortableRandom

_NARROW: Final = 64
_FEW_HIDDEN: Final = 4

_Sizes = Field(strict=False)


class Bound(NamedTuple):
    """Networks above either number get one of the ``choices`` smallest widths.

    Args:
        parameters: Number of parameters at a width of 32, for images of 32 pixels.
        cells: Number of cells.
        choices: Number of widths to choose from.
    """

    parameters: PositiveInt
    cells: PositiveInt
    choices: PositiveInt


class WidthRule(Config):
    """The widths and head sizes that a network may have, so that its training fits into memory.

    The first of the ``bounds`` that a network exceeds limits its choice of widths; networks without a global average
    or with convolutions of 5×5 and 7×7 exceed the first. A network within all bounds may have any width and, up to a
    width of 64, any head size. Other networks have one of the four smallest head sizes.

    A field of this type in another configuration also accepts a published rule by name, ``"cifar"`` or
    ``"imagenet"``, and each bound may be a list of three integers.

    Args:
        widths: Widths, ascending multiples of 8, the number of attention heads.
        hidden: Hidden sizes of classifiers with two layers, ascending.
        bounds: From the strictest to the loosest.
        strides: Whether the stride on large images is sampled from 2 and 4 for networks within all bounds with a stem
            of type 0, a stem pool and a global average; otherwise it is 4.

    Raises:
        ConfigError: If a field has a bad value.

    Example:
        >>> WidthRule.from_dict({"widths": [8, 16], "bounds": [[400_000, 10, 1]]}).bounds
        (Bound(parameters=400000, cells=10, choices=1),)
    """

    widths: Annotated[tuple[Annotated[PositiveInt, Field(multiple_of=HEADS)], ...], _Sizes] = tuple(range(32, 129, 16))
    hidden: Annotated[tuple[PositiveInt, ...], _Sizes] = tuple(range(64, 513, 64))
    bounds: Annotated[tuple[Bound, ...], Field(strict=False)] = (
        Bound(800_000, 12, 1), Bound(400_000, 10, 2), Bound(200_000, 8, 3)
    )  # fmt: skip
    strides: bool = False

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        if isinstance(values, str):
            if values not in WIDTH_RULES:
                raise ValueError(f"unknown rule {values!r}{choice(values, WIDTH_RULES)}")
            return WIDTH_RULES[values].to_dict()
        return values

    @field_validator("widths", "hidden")
    @classmethod
    def _check_ascending(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or list(sizes) != sorted(set(sizes)):
            raise ValueError("expected at least one and ascending integers")
        return sizes

    def sample(self, architecture: Architecture, random: PortableRandom) -> Architecture:
        """Returns the architecture with a random width, head size and stride.

        Example:
            >>> from ghn_pyg.families.deepnets import DARTS
            >>> CIFAR.sample(Architecture(genotype=DARTS, cells=20), PortableRandom(0)).width
            32
        """
        choices = self.choices(architecture)
        width = random.choice(self.widths[:choices])
        hidden = random.choice(self.hidden if choices is None and width <= _NARROW else self.hidden[:_FEW_HIDDEN])
        small_stem = architecture.stem_type == 0 and architecture.stem_pool and architecture.global_average
        stride = random.choice((2, 4)) if self.strides and choices is None and small_stem else 4
        return architecture.replace(width=width, hidden=hidden, imagenet_stride=stride)

    def choices(self, architecture: Architecture) -> int | None:
        """How many of the smallest widths a network may have; ``None`` for all."""
        demanding = not architecture.global_average or not LARGE_KERNELS.isdisjoint(architecture.genotype.operations)
        parameters = count_parameters(architecture, width=32, hidden=256)
        for bound in self.bounds:
            if demanding or parameters > bound.parameters or architecture.cells > bound.cells:
                return bound.choices
        return None


CIFAR: Final = WidthRule()
"""The published rule for images of 32 pixels."""

IMAGENET: Final = WidthRule(bounds=(Bound(2_000_000, 14, 1), Bound(400_000, 10, 4), Bound(200_000, 8, 5)), strides=True)
"""The published rule for images of 224 pixels."""

WIDTH_RULES: Final = {"cifar": CIFAR, "imagenet": IMAGENET}
"""The published rules by name."""


def evaluation_width(split: str, image_size: int, width: int = 32) -> int:
    """The width at which networks of a split are evaluated: in ``wide`` 4 times as wide, for large images twice.

    Example:
        >>> evaluation_width("wide", 32), evaluation_width("wide", 224), evaluation_width("test", 32)
        (128, 64, 32)
    """
    return width * (2 if is_large(image_size) else 4) if split == "wide" else width
