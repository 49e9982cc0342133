"""Architecture → the parts of its network for one image size and width, and which of them are in use."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from .architecture import Architecture
from .genotype import Branch
from .operations import make_operation, norm_of, pointwise, reduction
from .parts import (
    DROPOUT,
    FLATTEN,
    IDENTITY,
    RELU,
    SUBSAMPLE,
    Part,
    average,
    chain,
    convolution,
    linear,
    pool,
    positions,
)

LARGE_IMAGES: Final = 65
"""From this size on images get the stem for ImageNet (made for 224), smaller ones that for CIFAR (made for 32)."""
SMALLEST_IMAGE: Final = 4

Named = tuple[str, Part]


class Wiring(NamedTuple):
    """What of a cell its output is computed from.

    Args:
        inputs: Whether the cell's inputs 0 and 1 are used.
        branches: Whether each branch is used.
        output: Whether there is an output.
    """

    inputs: tuple[bool, bool]
    branches: tuple[bool, ...]
    output: bool


@dataclasses.dataclass(frozen=True, eq=False)
class CellLayout:
    """A cell: what its inputs go through, its branches and what of it is in use.

    Args:
        preprocess: What inputs 0 and 1 go through.
        operations: The operation of each branch, two per step.
        states: The state that each branch is applied to.
        concat: States that the output consists of.
        wiring: What is in use.
    """

    preprocess: tuple[Part, Part]
    operations: tuple[Part, ...]
    states: tuple[int, ...]
    concat: tuple[int, ...]
    wiring: Wiring

    def parts(self) -> Iterator[tuple[str, Part, bool]]:
        """Name and part of each that holds parameters, and whether it is in use."""
        for number in (0, 1):
            yield f".preprocess{number}", self.preprocess[number], self.wiring.inputs[number]
        for branch, part in enumerate(self.operations):
            yield f"._ops.{branch}", part, self.wiring.branches[branch]


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """A network.

    Args:
        stem: Parts that the image goes through; what the last gives is input 1 of the first cell.
        fork: The part of the stem that gives input 0 of the first cell.
        stem_used: Up to which part the stem is used.
        cells: The cells; equal ones are the same object.
        sides: Height and width of each cell's output.
        head: Parts that the last cell's output goes through.
        auxiliary: The second classifier, which stands after the cell ``auxiliary_cell``.
    """

    stem: tuple[Named, ...]
    fork: int
    stem_used: int
    cells: tuple[CellLayout, ...]
    sides: tuple[int, ...]
    head: tuple[Named, ...]
    auxiliary: Named | None
    auxiliary_cell: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        named = (*self.stem, *self.head, *((self.auxiliary,) if self.auxiliary else ()))
        sizes = {cell: sum(part.size for _, part, _ in cell.parts()) for cell in set(self.cells)}
        return sum(part.size for _, part in named) + sum(sizes[cell] for cell in self.cells)


def reductions(cells: int) -> tuple[int, ...]:
    """Which of so many cells are reduction cells."""
    return tuple(sorted({cells // 3, 2 * cells // 3} - {0}))


def wire_cell(branches: Sequence[Branch], concat: Sequence[int], inputs: Sequence[bool]) -> Wiring:
    """Finds what of a cell is in use: what its output depends on, and what depends on an input.

    Args:
        branches: Operations and the states that they are applied to.
        concat: States that the output consists of.
        inputs: Whether there are inputs 0 and 1.
    """
    present = list(inputs)
    for step in range(0, len(branches), 2):
        present.append(any(name != "none" and present[state] for name, state in branches[step : step + 2]))
    used = [False] * len(present)
    for state in concat:
        used[state] = present[state]
    alive = [False] * len(branches)
    for place in range(len(branches) - 1, -1, -1):
        name, state = branches[place]
        if used[place // 2 + 2] and name != "none" and present[state]:
            alive[place] = used[state] = True
    return Wiring((used[0], used[1]), tuple(alive), any(present[state] for state in concat))


def wire(architecture: Architecture, needed: Sequence[int]) -> tuple[tuple[Wiring, ...], tuple[bool, bool]] | None:
    """Finds what of each cell, and of the inputs of the first, is in use.

    Args:
        architecture: The architecture.
        needed: Cells whose output must exist.

    Returns:
        The wiring of each cell and whether inputs 0 and 1 of the first are used; ``None`` where a needed cell's
        output depends on no input.
    """
    genotype, reduces = architecture.genotype, reductions(architecture.cells)
    normal, reduce = (genotype.normal, genotype.normal_concat), (genotype.reduce, genotype.reduce_concat)
    known: dict[Any, Wiring] = {}
    present = [True, True]
    wirings = []
    for cell in range(architecture.cells):
        key = (cell in reduces, present[-2], present[-1])
        if key not in known:
            known[key] = wire_cell(*(reduce if key[0] else normal), key[1:])
        wirings.append(known[key])
        present.append(wirings[-1].output)
    if not all(wirings[cell].output for cell in needed):
        return None
    # Position i + 2 stands for the output of cell i, positions 0 and 1 for the inputs of the first.
    used = [place - 2 in needed for place in range(len(present))]
    for cell in range(architecture.cells - 1, -1, -1):
        if used[cell + 2]:
            inputs = wirings[cell].inputs
            used[cell] |= inputs[0]
            used[cell + 1] |= inputs[1]
        else:
            wirings[cell] = Wiring((False, False), (False,) * len(wirings[cell].branches), False)
    return tuple(wirings), (used[0], used[1])


def is_large(image_size: int) -> bool:
    """Whether images of this size get the stem for ImageNet."""
    return image_size >= LARGE_IMAGES


def lay_out(
    architecture: Architecture, num_classes: int = 10, image_size: int = 32, width: int | None = None,
    hidden: int | None = None, auxiliary: bool = False,
) -> Layout:  # fmt: skip
    """Lays out the network of an architecture; see :class:`~ghn_pyg.families.deepnets.Network` for the arguments.

    Raises:
        TypeError: If an argument is no integer.
        ValueError: If an argument is out of range, if an operation cannot have so many channels, or if the output or
            the second classifier does not depend on the input.
    """
    width = architecture.width if width is None else width
    hidden = architecture.hidden if hidden is None else hidden
    minima = {"num_classes": (num_classes, 1), "image_size": (image_size, SMALLEST_IMAGE), "width": (width, 2),
              "hidden": (hidden, 1)}  # fmt: skip
    for name, (value, least) in minima.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} expected an integer, got {value!r:.80}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    auxiliary_cell = 2 * architecture.cells // 3
    ends = {"output": architecture.cells - 1, **({"second classifier": auxiliary_cell} if auxiliary else {})}
    wired = wire(architecture, [*ends.values()])
    if wired is None:
        raise ValueError(
            f"the {' or '.join(ends)} does not depend on the input: in every way through the cells there is a 'none'; "
            f"use another genotype{' or auxiliary=False' if auxiliary else ''}"
        )
    wirings, entering = wired
    stem, channels, side, fork = _stem(architecture, image_size, width)
    cells, outputs, sides = _cells(architecture, wirings, channels, width, side, forked=fork < len(stem) - 1)
    return Layout(
        stem=stem,
        fork=fork,
        stem_used=len(stem) if entering[1] else fork + 1,
        cells=cells,
        sides=sides,
        head=_head(architecture, outputs[-1], sides[-1], num_classes, hidden),
        auxiliary=_auxiliary(architecture, outputs[auxiliary_cell], num_classes) if auxiliary else None,
        auxiliary_cell=auxiliary_cell,
    )


def _stem(architecture: Architecture, image_size: int, width: int) -> tuple[tuple[Named, ...], int, int, int]:
    """Its parts, the channels and the size of the last one's output, and which gives input 0 of the first cell."""
    large, kernel, norm = is_large(image_size), architecture.stem_kernel, architecture.norm
    if architecture.attention:
        side = image_size // 16 if large else (image_size - 1) // 3 + 1
        patches = convolution(3, width, 16, 16, padding=0) if large else convolution(3, width, 3, 3)
        return (("stem0", patches), ("pos_enc", positions(width, side))), width, side, 1
    if architecture.stem_type == 0:
        channels = width if large or not architecture.preprocess else 3 * width
        stride = architecture.imagenet_stride if large else 1
        layers = [convolution(3, channels, kernel, stride), norm_of(norm, channels)]
        side = _halved(image_size, stride)
        if architecture.stem_pool:
            layers.append(pool("max_pool", 2))
            side = _halved(side)
        return (("stem", chain(*layers)),), channels, side, 0
    stride, half = 2 if large else 1, width // 2
    first = chain(
        convolution(3, half, kernel, stride), norm_of(norm, half),
        RELU, convolution(half, width, 3, stride), norm_of(norm, width),
    )  # fmt: skip
    second = chain(RELU, convolution(width, width, 3, 2), norm_of(norm, width))
    return (("stem0", first), ("stem1", second)), width, _halved(image_size, 2 * stride * stride), 0


def _halved(side: int, stride: int = 2) -> int:
    return -(-side // stride)


def _cells(
    architecture: Architecture, wirings: Sequence[Wiring], channels: int, width: int, side: int, forked: bool
) -> tuple[tuple[CellLayout, ...], list[int], tuple[int, ...]]:
    """The cells, and the channels and the size of each one's output."""
    genotype, norm, strides = architecture.genotype, architecture.norm, not architecture.attention
    reduces = reductions(architecture.cells)
    known: dict[Any, CellLayout] = {}
    cells, outputs, sides = [], [], []
    before, last, halve = channels, channels, forked
    for position, wiring in enumerate(wirings):
        reduce = position in reduces
        if reduce:
            width *= architecture.multiplier
            side = _halved(side) if strides else side
        key = (reduce, before, last, width, halve, wiring)
        if key not in known:
            branches, concat = (
                (genotype.reduce, genotype.reduce_concat) if reduce else (genotype.normal, genotype.normal_concat)
            )
            known[key] = CellLayout(
                preprocess=_preprocess(architecture, before, last, width, halve),
                operations=tuple(
                    make_operation(name, width, 2 if reduce and strides and state < 2 else 1, norm)
                    for name, state in branches
                ),
                states=tuple(state for _, state in branches),
                concat=concat,
                wiring=wiring,
            )
        cells.append(known[key])
        outputs.append(width * len(known[key].concat))
        sides.append(side)
        before, last, halve = last, outputs[-1], reduce and strides
    return tuple(cells), outputs, tuple(sides)


def _preprocess(architecture: Architecture, before: int, last: int, width: int, halve: bool) -> tuple[Part, Part]:
    """What brings a cell's inputs to its width, and input 0 to the size of input 1."""
    if not architecture.preprocess:
        return SUBSAMPLE if halve else IDENTITY, IDENTITY
    norm = architecture.norm
    return (reduction if halve else pointwise)(before, width, norm), pointwise(last, width, norm)


def _head(architecture: Architecture, channels: int, side: int, num_classes: int, hidden: int) -> tuple[Named, ...]:
    pooled = architecture.global_average
    features = channels if pooled else channels * side * side
    if architecture.classifier_layers == 1:
        layers = [linear(features, num_classes)]
    else:
        layers = [linear(features, hidden), RELU, DROPOUT, linear(hidden, num_classes)]
    pooling: tuple[Named, ...] = (("global_pooling", average()),) if pooled else ()
    return (*pooling, ("flatten", FLATTEN), ("classifier", chain(*layers)))


def _auxiliary(architecture: Architecture, channels: int, num_classes: int) -> Named:
    """DARTS' second classifier, with a first pool that takes maps of any size."""
    norm = architecture.norm
    layers = [
        RELU, average(side=2), convolution(channels, 128), norm_of(norm, 128),
        RELU, convolution(128, 768, 2, padding=0), norm_of(norm, 768),
        RELU, FLATTEN, linear(768, num_classes),
    ]  # fmt: skip
    return "auxiliary_head", chain(*layers)


def count_parameters(
    architecture: Architecture, num_classes: int = 10, image_size: int = 32, width: int | None = None,
    hidden: int | None = None, auxiliary: bool = False,
) -> int:  # fmt: skip
    """Number of parameters of an architecture's network, without building it.

    Args and errors are those of :func:`lay_out`.

    Example:
        >>> from ghn_pyg.families.deepnets.genotype import VIT
        >>> vit = Architecture(genotype=VIT, cells=12, preprocess=False, width=128)
        >>> count_parameters(vit)
        1210634
    """
    return lay_out(architecture, num_classes, image_size, width, hidden, auxiliary).size
