"""The DeepNets-1M distribution (GHN-2, arXiv 2110.13100, section 4): an architecture for each split and index."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from ...utils.suggest import choice
from .architecture import Architecture
from .genotype import LARGE_KERNELS, OPERATIONS, PARAMETERLESS, VIT, Branch, Genotype
from .layout import count_parameters, wire

Range = tuple[int, int]
"""Smallest and largest value, both included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The numbers that tell one split's distribution from another's.

    Args:
        cells: Number of cells.
        thresholds: Networks of more cells than a number that is drawn from this range count as deep: they have fewer
            steps and always a global average.
        steps: Steps of each cell of a network that is not deep.
        deep_steps: Steps of each cell of a deep network.
        max_parameters: Largest number of parameters at a width of 32, for images of 32 and of 224 pixels.
        norms: Whether all networks have batch norms (``True``), none has (``False``), or small ones may have none.
        normless_steps: Largest number of steps with which a small network may have no norms.
        preprocess_rate: How often networks that need no preprocessing and have no self-attention have it.
    """

    cells: Range = (4, 18)
    thresholds: Range = (7, 10)
    steps: Range = (1, 4)
    deep_steps: Range = (1, 2)
    max_parameters: int = 10**7
    norms: bool | None = None
    normless_steps: int = 2
    preprocess_rate: float = 1.0


_COMMON: Final = SearchSpace()

SEARCH_SPACES: Final[dict[str, SearchSpace]] = {
    "train": _COMMON,
    "val": _COMMON,
    "test": _COMMON,
    "wide": _COMMON,
    "deep": SearchSpace(cells=(10, 36), thresholds=(18, 18), max_parameters=10**8),
    "dense": SearchSpace(steps=(2, 10), deep_steps=(2, 6), max_parameters=10**8, normless_steps=6),
    "bnfree": SearchSpace(norms=False),
    "search": SearchSpace(
        cells=(6, 20), thresholds=(10, 10), steps=(1, 6), deep_steps=(1, 3), norms=True, preprocess_rate=0.8
    ),
}
"""Split → what its architectures are drawn from."""

SPLIT_SIZES: Final[dict[str, int]] = {
    "train": 10**6,
    "val": 500,
    "test": 500,
    "wide": 100,
    "deep": 100,
    "dense": 100,
    "bnfree": 100,
    "search": 10**5,
}
"""Published number of architectures of each split."""

PREDEFINED: Final[dict[str, Architecture | None]] = {
    "resnet50": None,
    "vit": Architecture(genotype=VIT, cells=12, preprocess=False, width=128),
}
"""The published split ``predefined``: ResNet-50 (torchvision's, so it is not made of cells) and a ViT."""

_RESERVED: Final = ("val", "test", "wide", "deep", "dense", "bnfree", "search")
_SHARES: Final = 16
_RATE: Final = 0.5
_ATTENTION_RATE: Final = 0.2
_AVERAGE_RATE: Final = 0.9
_CONVOLUTIONS: Final = frozenset(name for name in OPERATIONS if "conv" in name)
_REDUCING: Final = tuple(name for name in OPERATIONS if name in PARAMETERLESS)


def sample(split: str, index: int, seed: int = 0) -> Architecture:
    """The architecture that stands at a position of a split.

    It is a function of the arguments alone, on every machine. No architecture belongs to two splits, whatever the
    seeds: its :attr:`~ghn_pyg.families.deepnets.Architecture.key` tells which split it may stand in (each but
    ``"train"`` has one sixteenth of them), and one that falls to another is drawn again. Within a split an
    architecture may come back, as in any sample: of the first 10,000 for training, 16 do; of 500 for validation, one.

    Args:
        split: A name in :data:`SPLIT_SIZES`.
        index: Position in the split, below its size.
        seed: For other samples from the same distribution.

    Raises:
        ValueError: If there is no such split, or ``seed`` is negative.
        TypeError: If ``index`` or ``seed`` is no integer.
        IndexError: If ``index`` is out of range.

    Example:
        >>> sample("train", 0).cells
        13
    """
    check_place(split, index, seed)
    space = SEARCH_SPACES[split]
    numbers = Numbers(seed, [*SPLIT_SIZES].index(split), index)
    while True:
        architecture = draw(space, numbers)
        if architecture is not None and split_of(architecture) == split and fits(architecture, space):
            return architecture


def split_of(architecture: Architecture) -> str:
    """The split that an architecture may stand in."""
    share = architecture.key[0] % _SHARES
    return _RESERVED[share] if share < len(_RESERVED) else "train"


def check_place(split: str, index: int, seed: int) -> None:
    """Raises the errors of :func:`sample` for a position that does not exist."""
    if split == "predefined":
        raise ValueError("the split 'predefined' is a fixed list, not a distribution; see PREDEFINED")
    if split not in SPLIT_SIZES:
        raise ValueError(f"unknown split {split!r}{choice(split, SPLIT_SIZES)}")
    for name, value in (("index", index), ("seed", seed)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise TypeError(f"{name} expected an integer, got {value!r:.80}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if not 0 <= index < SPLIT_SIZES[split]:
        raise IndexError(f"split {split!r} has positions 0 to {SPLIT_SIZES[split] - 1}, got {index}")


class Numbers:
    """Random numbers that are the same on every machine and with every version of NumPy.

    The raw stream of PCG64 and its seeding are frozen; what NumPy's ``Generator`` makes of them is not.

    Args:
        seed: Any number of at least 0.
        place: Numbers that make the stream different from others of the same seed.
    """

    def __init__(self, seed: int, *place: int) -> None:
        bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=place))
        self._stream = _stream(bits)

    def below(self, count: int) -> int:
        """An integer from 0 to ``count`` - 1."""
        return next(self._stream) * count >> 64

    def between(self, bounds: Range) -> int:
        """An integer between the bounds, both included."""
        return bounds[0] + self.below(bounds[1] - bounds[0] + 1)

    def chance(self, rate: float) -> bool:
        """Whether something happens that does so at a rate."""
        return next(self._stream) < rate * 2**64


def _stream(bits: np.random.PCG64) -> Iterator[int]:
    while True:
        yield from bits.random_raw(64).tolist()


def draw(space: SearchSpace, numbers: Numbers) -> Architecture | None:
    """Draws an architecture; ``None`` when its operations are not admitted."""
    cells = numbers.between(space.cells)
    deep = cells > numbers.between(space.thresholds)
    steps = numbers.between(space.deep_steps if deep else space.steps)
    names = OPERATIONS if steps > 1 else OPERATIONS[1:]
    reducing = _REDUCING if steps > 1 else _REDUCING[1:]
    normal = _draw_cell(numbers, steps, names)
    reduce = _draw_cell(numbers, steps, reducing if numbers.chance(_RATE) else names)
    concat = _draw_concat(numbers, steps)
    if not admitted(normal, reduce):
        return None

    attention = any(name == "msa" for name, _ in (*normal, *reduce))
    multiplier, stem_type = 1 + numbers.below(2), numbers.below(2)
    optional_rate = _ATTENTION_RATE if attention else space.preprocess_rate
    small = cells <= space.cells[0] + 1 and steps <= space.normless_steps
    norms = not (small and numbers.chance(_RATE)) if space.norms is None else space.norms
    return Architecture(
        genotype=Genotype(normal, concat, reduce, concat),
        cells=cells,
        norm="bnorm" if norms else None,
        stem_kernel=3 + 2 * numbers.below(3),
        stem_type=stem_type,
        stem_pool=stem_type == 0 and numbers.chance(_RATE),
        preprocess=steps > 1 or multiplier > 1 or numbers.chance(optional_rate),
        global_average=attention or deep or numbers.chance(_AVERAGE_RATE),
        multiplier=multiplier,
        classifier_layers=1 + numbers.below(2),
    )


def _draw_cell(numbers: Numbers, steps: int, names: Sequence[str]) -> tuple[Branch, ...]:
    """Branches of a cell.

    DARTS keeps for each step the two input edges with the best operations. Where all scores are drawn alike, these are
    any two different edges, in any order, with any operations.
    """
    branches = []
    for step in range(steps):
        first = numbers.below(step + 2)
        second = numbers.below(step + 1)
        second += second >= first
        branches += [(names[numbers.below(len(names))], state) for state in (first, second)]
    return tuple(branches)


def _draw_concat(numbers: Numbers, steps: int) -> tuple[int, ...]:
    """All steps, or as often some that hold the last one."""
    some = steps > 1 and numbers.chance(_RATE)
    chosen = [step for step in range(steps - 1) if not some or numbers.chance(_RATE)]
    return tuple(step + 2 for step in (*chosen, steps - 1))


def admitted(normal: Sequence[Branch], reduce: Sequence[Branch]) -> bool:
    """Whether a genotype's operations go together."""
    cells = [[name for name, _ in branches] for branches in (normal, reduce)]
    used = {name for names in cells for name in names}
    if used <= PARAMETERLESS or ("cse" in used and not used & _CONVOLUTIONS):
        return False
    return all(names.count("cse") <= 1 and sum(name in LARGE_KERNELS for name in names) <= 1 for names in cells)


def fits(architecture: Architecture, space: SearchSpace) -> bool:
    """Whether the output depends on the input and the network is not too large.

    Example:
        >>> fits(sample("deep", 0), SEARCH_SPACES["deep"])
        True
    """
    if wire(architecture, [architecture.cells - 1]) is None:
        return False
    return all(count_parameters(architecture, image_size=size) <= space.max_parameters for size in (32, 224))
