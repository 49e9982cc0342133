"""Architecture → the building blocks of its network for one image size and width, and which of them are used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from .architecture import Architecture
from .blocks import (
    DROPOUT,
    FLATTEN,
    IDENTITY,
    RELU,
    SUBSAMPLE,
    Block,
    convolution,
    global_average,
    linear,
    pool,
    positional_embedding,
    sequential,
)
from .genotype import Branch
from .operations import make_norm, make_operation, pointwise, reduction

LARGE_IMAGES: Final = 65
"""Images from this size on get the ImageNet stem (made for 224 pixels), smaller ones the CIFAR stem (for 32)."""

SMALLEST_IMAGE: Final = 4

NamedBlock = tuple[str, Block]


class Wiring(NamedTuple):
    """Which inputs and branches a cell's output is computed from, and whether there is an output."""

    inputs: tuple[bool, bool]
    branches: tuple[bool, ...]
    output: bool


@dataclasses.dataclass(frozen=True, eq=False)
class CellPlan:
    """A cell: the blocks of its two inputs, each branch's operation and input state, the states of its output."""

    preprocess: tuple[Block, Block]
    operations: tuple[Block, ...]
    states: tuple[int, ...]
    concat: tuple[int, ...]
    wiring: Wiring

    def blocks(self) -> Iterator[tuple[str, Block, bool]]:
        """Name of each block, the block, and whether it is used."""
        for number in (0, 1):
            yield f".preprocess{number}", self.preprocess[number], self.wiring.inputs[number]
        for branch, block in enumerate(self.operations):
            yield f"._ops.{branch}", block, self.wiring.branches[branch]


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkPlan:
    """A network.

    Args:
        stem: Blocks that the image goes through; the last one's output is input 1 of the first cell.
        fork: Index of the stem's block whose output is input 0 of the first cell.
        stem_used: How many blocks of the stem are used.
        cells: The cells; equal ones are the same object.
        sides: Height and width of each cell's output.
        head: Blocks that the last cell's output goes through.
        auxiliary: The auxiliary classifier, which follows the cell ``auxiliary_cell``.
    """

    stem: tuple[NamedBlock, ...]
    fork: int
    stem_used: int
    cells: tuple[CellPlan, ...]
    sides: tuple[int, ...]
    head: tuple[NamedBlock, ...]
    auxiliary: NamedBlock | None
    auxiliary_cell: int

    def blocks(self) -> Iterator[tuple[str, Block, bool]]:
        """Full name of each block without the auxiliary classifier's, the block, and whether it is used."""
        for number, (name, block) in enumerate(self.stem):
            yield name, block, number < self.stem_used
        for number, cell in enumerate(self.cells):
            for name, block, used in cell.blocks():
                yield f"cells.{number}{name}", block, used
        for name, block in self.head:
            yield name, block, True

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        named = (*self.stem, *self.head, *((self.auxiliary,) if self.auxiliary else ()))
        cells = {cell: sum(block.num_parameters for _, block, _ in cell.blocks()) for cell in set(self.cells)}
        return sum(block.num_parameters for _, block in named) + sum(cells[cell] for cell in self.cells)


def reduction_cells(cells: int) -> tuple[int, ...]:
    """Indices of the reduction cells of a network with this number of cells."""
    return tuple(sorted({cells // 3, 2 * cells // 3} - {0}))


def wire_cell(branches: Sequence[Branch], concat: Sequence[int], inputs: Sequence[bool]) -> Wiring:
    """Determines which parts of a cell, whose two inputs may not exist, depend on an input and reach the output."""
    exists = list(inputs)
    for step in range(0, len(branches), 2):
        exists.append(any(name != "none" and exists[state] for name, state in branches[step : step + 2]))
    used = [False] * len(exists)
    for state in concat:
        used[state] = exists[state]
    used_branches = [False] * len(branches)
    for branch in range(len(branches) - 1, -1, -1):
        name, state = branches[branch]
        if used[branch // 2 + 2] and name != "none" and exists[state]:
            used_branches[branch] = used[state] = True
    return Wiring((used[0], used[1]), tuple(used_branches), any(exists[state] for state in concat))


def wire_cells(architecture: Architecture, needed: Sequence[int]) -> tuple[tuple[Wiring, ...], bool] | None:
    """Determines which parts of each cell the outputs of the ``needed`` cells are computed from.

    Returns the wiring of each cell and whether input 1 of the first is used; ``None`` if the output of a needed cell
    does not depend on the input.
    """
    genotype, reducing = architecture.genotype, reduction_cells(architecture.cells)
    normal, reduce = (genotype.normal, genotype.normal_concat), (genotype.reduce, genotype.reduce_concat)
    cache: dict[Any, Wiring] = {}
    exists = [True, True]  # index i + 2 is the output of cell i, indices 0 and 1 are the inputs of the first cell
    wirings = []
    for cell in range(architecture.cells):
        key = (cell in reducing, exists[-2], exists[-1])
        if key not in cache:
            cache[key] = wire_cell(*(reduce if key[0] else normal), key[1:])
        wirings.append(cache[key])
        exists.append(wirings[-1].output)
    if not all(wirings[cell].output for cell in needed):
        return None
    used = [index - 2 in needed for index in range(len(exists))]
    for cell in range(architecture.cells - 1, -1, -1):
        if used[cell + 2]:
            inputs = wirings[cell].inputs
            used[cell] |= inputs[0]
            used[cell + 1] |= inputs[1]
        else:
            wirings[cell] = Wiring((False, False), (False,) * len(wirings[cell].branches), False)
    return tuple(wirings), used[1]


def is_large(image_size: int) -> bool:
    """Whether images of this size get the ImageNet stem."""
    return image_size >= LARGE_IMAGES


def plan_network(
    architecture: Architecture, num_classes: int = 10, image_size: int = 32, width: int | None = None,
    hidden: int | None = None, auxiliary: bool = False,
) -> NetworkPlan:  # fmt: skip
    """Plans the network of an architecture; see :class:`~ghn_pyg.families.deepnets.Network` for the arguments."""
    width = architecture.width if width is None else width
    hidden = architecture.hidden if hidden is None else hidden
    minima = {"num_classes": (num_classes, 1), "image_size": (image_size, SMALLEST_IMAGE), "width": (width, 2),
              "hidden": (hidden, 1)}  # fmt: skip
    for name, (value, minimum) in minima.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} expected an integer, got {value!r:.80}")
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")
    auxiliary_cell = 2 * architecture.cells // 3
    needed = {"output": architecture.cells - 1, **({"auxiliary classifier": auxiliary_cell} if auxiliary else {})}
    wired = wire_cells(architecture, [*needed.values()])
    if wired is None:
        raise ValueError(
            f"the {' or '.join(needed)} does not depend on the input, as every path through the cells contains a "
            f"'none'; use another genotype{' or no auxiliary classifier' if auxiliary else ''}"
        )
    wirings, whole_stem = wired
    stem, channels, side, fork = _stem(architecture, image_size, width)
    cells, outputs, sides = _cells(architecture, wirings, channels, width, side, forked=fork < len(stem) - 1)
    return NetworkPlan(
        stem=stem,
        fork=fork,
        stem_used=len(stem) if whole_stem else fork + 1,
        cells=cells,
        sides=sides,
        head=_head(architecture, outputs[-1], sides[-1], num_classes, hidden),
        auxiliary=_auxiliary(architecture, outputs[auxiliary_cell], num_classes) if auxiliary else None,
        auxiliary_cell=auxiliary_cell,
    )


def _stem(architecture: Architecture, image_size: int, width: int) -> tuple[tuple[NamedBlock, ...], int, int, int]:
    """The stem's blocks, the channels and the side of its output, and the index of its fork."""
    large, kernel, norm = is_large(image_size), architecture.stem_kernel, architecture.norm
    if architecture.attention:
        side = image_size // 16 if large else (image_size - 1) // 3 + 1
        patches = convolution(3, width, 16, 16, padding=0) if large else convolution(3, width, 3, 3)
        return (("stem0", patches), ("pos_enc", positional_embedding(width, side))), width, side, 1
    if architecture.stem_type == 0:
        channels = width if large or not architecture.preprocess else 3 * width
        stride = architecture.imagenet_stride if large else 1
        layers = [convolution(3, channels, kernel, stride), make_norm(norm, channels)]
        side = _strided(image_size, stride)
        if architecture.stem_pool:
            layers.append(pool("max_pool", 2))
            side = _strided(side)
        return (("stem", sequential(*layers)),), channels, side, 0
    stride, half = 2 if large else 1, width // 2
    first = sequential(
        convolution(3, half, kernel, stride), make_norm(norm, half),
        RELU, convolution(half, width, 3, stride), make_norm(norm, width),
    )  # fmt: skip
    second = sequential(RELU, convolution(width, width, 3, 2), make_norm(norm, width))
    return (("stem0", first), ("stem1", second)), width, _strided(image_size, 2 * stride * stride), 0


def _strided(side: int, stride: int = 2) -> int:
    return -(-side // stride)


def _cells(
    architecture: Architecture, wirings: Sequence[Wiring], channels: int, width: int, side: int, forked: bool
) -> tuple[tuple[CellPlan, ...], list[int], tuple[int, ...]]:
    """The cells, and the channels and the side of each one's output."""
    genotype, norm, strides = architecture.genotype, architecture.norm, not architecture.attention
    normal, reduce = (genotype.normal, genotype.normal_concat), (genotype.reduce, genotype.reduce_concat)
    reducing = reduction_cells(architecture.cells)
    cache: dict[Any, CellPlan] = {}
    cells, outputs, sides = [], [], []
    before, last, halve = channels, channels, forked
    for position, wiring in enumerate(wirings):
        reduces = position in reducing
        if reduces:
            width *= architecture.multiplier
            side = _strided(side) if strides else side
        key = (reduces, before, last, width, halve, wiring)
        if key not in cache:
            branches, concat = reduce if reduces else normal
            cache[key] = CellPlan(
                preprocess=_preprocess(architecture, before, last, width, halve),
                operations=tuple(
                    make_operation(name, width, 2 if reduces and strides and state < 2 else 1, norm)
                    for name, state in branches
                ),
                states=tuple(state for _, state in branches),
                concat=concat,
                wiring=wiring,
            )
        cells.append(cache[key])
        outputs.append(width * len(cache[key].concat))
        sides.append(side)
        before, last, halve = last, outputs[-1], reduces and strides
    return tuple(cells), outputs, tuple(sides)


def _preprocess(architecture: Architecture, before: int, last: int, width: int, halve: bool) -> tuple[Block, Block]:
    """Maps a cell's inputs to its width, and input 0 to the size of input 1."""
    if not architecture.preprocess:
        return SUBSAMPLE if halve else IDENTITY, IDENTITY
    norm = architecture.norm
    return (reduction if halve else pointwise)(before, width, norm), pointwise(last, width, norm)


def _head(
    architecture: Architecture, channels: int, side: int, num_classes: int, hidden: int
) -> tuple[NamedBlock, ...]:
    pooled = architecture.global_average
    features = channels if pooled else channels * side * side
    if architecture.classifier_layers == 1:
        layers = [linear(features, num_classes)]
    else:
        layers = [linear(features, hidden), RELU, DROPOUT, linear(hidden, num_classes)]
    pooling: tuple[NamedBlock, ...] = (("global_pooling", global_average()),) if pooled else ()
    return (*pooling, ("flatten", FLATTEN), ("classifier", sequential(*layers)))


def _auxiliary(architecture: Architecture, channels: int, num_classes: int) -> NamedBlock:
    """The auxiliary classifier of DARTS, whose first pool takes maps of any size."""
    norm = architecture.norm
    layers = [
        RELU, global_average(side=2), convolution(channels, 128), make_norm(norm, 128),
        RELU, convolution(128, 768, 2, padding=0), make_norm(norm, 768),
        RELU, FLATTEN, linear(768, num_classes),
    ]  # fmt: skip
    return "auxiliary_head", sequential(*layers)


def count_parameters(
    architecture: Architecture, num_classes: int = 10, image_size: int = 32, width: int | None = None,
    hidden: int | None = None, auxiliary: bool = False,
) -> int:  # fmt: skip
    """Number of parameters of an architecture's network, without building it.

    Args and errors are those of :func:`plan_network`.

    Example:
        >>> from ghn_pyg.families.deepnets import VIT
        >>> vit = Architecture(genotype=VIT, cells=12, preprocess=False, width=128)
        >>> count_parameters(vit)
        1210634
    """
    return plan_network(architecture, num_classes, image_size, width, hidden, auxiliary).num_parameters
