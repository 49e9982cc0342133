"""Samples random architectures from the DeepNets-1M distribution (GHN-2, arXiv 2110.13100, section 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, Literal

from ...utils.suggest import choice
from .architecture import Architecture
from .genotype import LARGE_KERNELS, OPERATIONS, PARAMETERLESS, VIT, Branch, Genotype
from .network_plan import count_parameters, wire_cells
from .portable_random import PortableRandom

Range = tuple[int, int]
"""Minimum and maximum, both included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What the distributions of the splits differ in.

    Args:
        cells: Number of cells.
        deep_threshold: Networks with more cells than a number sampled from this range are deep: they have fewer steps
            and always a global average.
        steps: Steps of each cell of other networks.
        deep_steps: Steps of each cell of deep networks.
        max_parameters: Largest number of parameters at a width of 32, for images of 32 and of 224 pixels.
        norms: ``True`` for batch norms, ``False`` for no norms, ``None`` for no norms in half of the small networks.
        normless_steps: Largest number of steps of a small network.
        preprocess_rate: Probability of preprocessing where it is not needed, without self-attention.
    """

    cells: Range = (4, 18)
    deep_threshold: Range = (7, 10)
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
    "deep": SearchSpace(cells=(10, 36), deep_threshold=(18, 18), max_parameters=10**8),
    "dense": SearchSpace(steps=(2, 10), deep_steps=(2, 6), max_parameters=10**8, normless_steps=6),
    "bnfree": SearchSpace(norms=False),
    "search": SearchSpace(
        cells=(6, 20), deep_threshold=(10, 10), steps=(1, 6), deep_steps=(1, 3), norms=True, preprocess_rate=0.8
    ),
}
"""The search space of each split."""

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
"""Number of architectures of each split."""

PREDEFINED: Final[dict[str, Architecture | None]] = {
    "resnet50": None,
    "vit": Architecture(genotype=VIT, cells=12, preprocess=False, width=128),
}
"""The published split ``predefined``: a ViT, and ResNet-50, which has no cells and comes from torchvision."""

_RESERVED: Final = ("val", "test", "wide", "deep", "dense", "bnfree", "search")
_KEY_CLASSES: Final = 16
_ATTENTION_PREPROCESS_RATE: Final = 0.2
_GLOBAL_AVERAGE_RATE: Final = 0.9
_CONVOLUTIONS: Final = frozenset(name for name in OPERATIONS if "conv" in name)
_REDUCING: Final = tuple(name for name in OPERATIONS if name in PARAMETERLESS)


def sample(split: str, index: int, seed: int = 0) -> Architecture:
    """Samples an architecture of a split.

    The result depends on the arguments alone and is the same on every machine. No architecture belongs to two splits,
    whatever the seeds: its :attr:`~ghn_pyg.families.deepnets.Architecture.key` determines the split that may contain
    it (each but ``"train"`` has one sixteenth of them), and architectures of other splits are rejected. Within a split
    an architecture may repeat: 16 of the first 10,000 for training do, and one of the 500 for validation.

    Args:
        split: A name in :data:`SPLIT_SIZES`.
        index: Index in the split, below its size.
        seed: Selects another sample of the same distribution.

    Raises:
        ValueError: If there is no such split, or ``seed`` is negative.
        IndexError: If ``index`` is out of range.

    Example:
        >>> sample("train", 0).cells
        13
    """
    check_index(split, index, seed)
    space = SEARCH_SPACES[split]
    random = PortableRandom(seed, [*SPLIT_SIZES].index(split), index)
    while True:
        architecture = propose(space, random)
        if architecture is not None and is_valid(architecture, split):
            return architecture


def check_index(split: str, index: int, seed: int) -> None:
    """Raises the errors of :func:`sample`."""
    if split not in SPLIT_SIZES:
        raise ValueError(f"unknown split {split!r}{choice(split, SPLIT_SIZES)}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if not 0 <= index < SPLIT_SIZES[split]:
        raise IndexError(f"split {split!r} has indices 0 to {SPLIT_SIZES[split] - 1}, got {index}")


def split_of(architecture: Architecture) -> str:
    """The only split that may contain an architecture."""
    key_class = architecture.key[0] % _KEY_CLASSES
    return _RESERVED[key_class] if key_class < len(_RESERVED) else "train"


def is_valid(architecture: Architecture, split: str) -> bool:
    """Whether an architecture may be in a split, its output depends on the input, and it is not too large.

    Example:
        >>> is_valid(sample("deep", 0), "deep"), is_valid(sample("deep", 0), "test")
        (True, False)
    """
    if split_of(architecture) != split or wire_cells(architecture, [architecture.cells - 1]) is None:
        return False
    largest = SEARCH_SPACES[split].max_parameters
    return all(count_parameters(architecture, image_size=size) <= largest for size in (32, 224))


def propose(space: SearchSpace, random: PortableRandom) -> Architecture | None:
    """Samples an architecture of any split and size; ``None`` if its genotype is rejected."""
    cells = random.randint(*space.cells)
    deep = cells > random.randint(*space.deep_threshold)
    steps = random.randint(*(space.deep_steps if deep else space.steps))
    names = OPERATIONS if steps > 1 else OPERATIONS[1:]
    reducing = _REDUCING if steps > 1 else _REDUCING[1:]
    normal = _sample_cell(random, steps, names)
    reduce = _sample_cell(random, steps, reducing if random.bernoulli(0.5) else names)
    concat = _sample_concat(random, steps)
    if not has_valid_operations(normal, reduce):
        return None

    attention = any(name == "msa" for name, _ in (*normal, *reduce))
    multiplier = random.choice((1, 2))
    stem_type: Literal[0, 1] = random.choice((0, 1))
    preprocess_rate = _ATTENTION_PREPROCESS_RATE if attention else space.preprocess_rate
    small = cells <= space.cells[0] + 1 and steps <= space.normless_steps
    norms = not (small and random.bernoulli(0.5)) if space.norms is None else space.norms
    return Architecture(
        genotype=Genotype(normal, concat, reduce, concat),
        cells=cells,
        norm="bnorm" if norms else None,
        stem_kernel=random.choice((3, 5, 7)),
        stem_type=stem_type,
        stem_pool=stem_type == 0 and random.bernoulli(0.5),
        preprocess=steps > 1 or multiplier > 1 or random.bernoulli(preprocess_rate),
        global_average=attention or deep or random.bernoulli(_GLOBAL_AVERAGE_RATE),
        multiplier=multiplier,
        classifier_layers=random.choice((1, 2)),
    )


def _sample_cell(random: PortableRandom, steps: int, names: Sequence[str]) -> tuple[Branch, ...]:
    """Samples the branches of a cell.

    DARTS keeps the two input edges of each step with the best operations. With random logits, these are two distinct
    edges in random order with random operations.
    """
    branches = []
    for step in range(steps):
        first = random.randbelow(step + 2)
        second = random.randbelow(step + 1)
        second += second >= first
        branches += [(random.choice(names), state) for state in (first, second)]
    return tuple(branches)


def _sample_concat(random: PortableRandom, steps: int) -> tuple[int, ...]:
    """All steps, or with probability ½ a random subset that contains the last one."""
    subset = steps > 1 and random.bernoulli(0.5)
    chosen = [step for step in range(steps - 1) if not subset or random.bernoulli(0.5)]
    return tuple(step + 2 for step in (*chosen, steps - 1))


def has_valid_operations(normal: Sequence[Branch], reduce: Sequence[Branch]) -> bool:
    """Whether the distribution contains a genotype with these branches."""
    cells = [[name for name, _ in branches] for branches in (normal, reduce)]
    used = {name for names in cells for name in names}
    if used <= PARAMETERLESS or ("cse" in used and not used & _CONVOLUTIONS):
        return False
    return all(names.count("cse") <= 1 and sum(name in LARGE_KERNELS for name in names) <= 1 for names in cells)
