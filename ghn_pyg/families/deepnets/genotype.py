"""What the cells of an architecture compute: the genotypes of DARTS (arXiv 1806.09055)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ...utils.suggest import choice

OPERATIONS: Final = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_1x1",
    "conv_7x1_1x7",
    "conv_3x3",
    "conv_5x5",
    "conv_7x7",
    "msa",
    "cse",
)
"""Names of the operations between the states of a cell."""

LARGE_KERNELS: Final = frozenset(("conv_5x5", "conv_7x7"))
"""Operations with most parameters, of which a cell has one at most."""

PARAMETERLESS: Final = frozenset(("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect"))
"""Operations without parameters of their own (a skip connection has some where it strides)."""

Branch = tuple[str, int]
"""An operation and the state that it is applied to."""

_FIELDS: Final = ("normal", "normal_concat", "reduce", "reduce_concat")


@dataclasses.dataclass(frozen=True)
class Genotype:
    r"""The two kinds of cells of an architecture.

    A cell has states :math:`h_0, h_1` (the outputs of the cell before the last and of the last cell) and
    :math:`h_2, h_3, \dots`, one for each step: :math:`h_i = a(h_j) + b(h_k)` with :math:`j, k < i`. Its output is the
    concatenation of some of the steps. Lists are taken for tuples, as files hold them.

    Args:
        normal: Branches of a normal cell as (operation, input state), two per step.
        normal_concat: States that a normal cell's output consists of.
        reduce: Branches of a reduction cell.
        reduce_concat: States that a reduction cell's output consists of.

    Raises:
        TypeError: If something is no list of branches or of states.
        ValueError: If an operation is unknown or a state does not exist.

    Example:
        >>> cell = [("conv_3x3", 0), ("skip_connect", 1)]
        >>> Genotype(cell, [2], cell, [2]).steps
        1
    """

    normal: tuple[Branch, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Branch, ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for kind in ("normal", "reduce"):
            branches = _branches(kind, getattr(self, kind))
            object.__setattr__(self, kind, branches)
            name = f"{kind}_concat"
            object.__setattr__(self, name, _concat(name, getattr(self, name), len(branches) // 2))

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Genotype:
        """The genotype that a published file describes as a dictionary.

        Raises:
            TypeError: If ``args`` is no dictionary, or holds something else than lists.
            ValueError: If an entry is missing or wrong.
        """
        if not isinstance(args, Mapping):
            raise TypeError(f"genotype expected a dictionary with {', '.join(_FIELDS)}, got {args!r:.80}")
        if missing := [name for name in _FIELDS if name not in args]:
            raise ValueError(f"genotype lacks {', '.join(missing)}; it has {', '.join(map(str, args)) or 'nothing'}")
        return cls(**{name: args[name] for name in _FIELDS})

    def to_args(self) -> dict[str, Any]:
        """A dictionary of lists, as published files hold it."""
        return {
            "normal": [list(branch) for branch in self.normal],
            "normal_concat": list(self.normal_concat),
            "reduce": [list(branch) for branch in self.reduce],
            "reduce_concat": list(self.reduce_concat),
        }

    @property
    def steps(self) -> int:
        """The larger number of steps of the two cells."""
        return max(len(self.normal), len(self.reduce)) // 2

    @property
    def operations(self) -> frozenset[str]:
        """Names of the operations in either cell."""
        return frozenset(name for name, _ in (*self.normal, *self.reduce))


def _branches(kind: str, given: Any) -> tuple[Branch, ...]:
    branches = tuple(_branch(kind, branch) for branch in _sequence(kind, given, "branches"))
    if not branches or len(branches) % 2:
        raise ValueError(f"{kind} expected two branches for each step and at least one step, got {len(branches)}")
    for position, (name, state) in enumerate(branches):
        step = position // 2
        if name not in OPERATIONS:
            raise ValueError(f"{kind}: unknown operation {name!r} in step {step}{choice(name, OPERATIONS)}")
        if not 0 <= state < step + 2:
            raise ValueError(f"{kind}: step {step} can take states 0 to {step + 1}, got {state} for {name!r}")
    return branches


def _branch(kind: str, given: Any) -> Branch:
    if isinstance(given, (list, tuple)) and len(given) == 2:
        name, state = given
        if isinstance(name, str) and isinstance(state, int) and not isinstance(state, bool):
            return name, state
    raise TypeError(f"{kind} expected branches (operation, state), got {given!r:.80}")


def _concat(name: str, given: Any, steps: int) -> tuple[int, ...]:
    states = tuple(_sequence(name, given, "states"))
    if not all(isinstance(state, int) and not isinstance(state, bool) for state in states):
        raise TypeError(f"{name} expected the numbers of states, got {states!r:.80}")
    if not states or len(set(states)) < len(states) or not all(2 <= state < steps + 2 for state in states):
        raise ValueError(f"{name} expected one or more of the states 2 to {steps + 1}, each once, got {list(states)}")
    return states


def _sequence(name: str, given: Any, what: str) -> Iterable[Any]:
    if not isinstance(given, (list, tuple, range)):
        raise TypeError(f"{name} expected a list of {what}, got {given!r:.80}")
    return given


DARTS: Final = Genotype(
    normal=(
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("skip_connect", 0),
        ("skip_connect", 0), ("dil_conv_3x3", 2),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1),
        ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2),
        ("skip_connect", 2), ("max_pool_3x3", 1),
    ),
    reduce_concat=(2, 3, 4, 5),
)  # fmt: skip
"""Found by DARTS, second order (arXiv 1806.09055, figures 4 and 5)."""

PDARTS: Final = Genotype(
    normal=(
        ("skip_connect", 0), ("dil_conv_3x3", 1),
        ("skip_connect", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("sep_conv_3x3", 3),
        ("sep_conv_3x3", 0), ("dil_conv_5x5", 4),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("avg_pool_3x3", 0), ("sep_conv_5x5", 1),
        ("sep_conv_3x3", 0), ("dil_conv_5x5", 2),
        ("max_pool_3x3", 0), ("dil_conv_3x3", 1),
        ("dil_conv_3x3", 1), ("dil_conv_5x5", 3),
    ),
    reduce_concat=(2, 3, 4, 5),
)  # fmt: skip
"""Found by Progressive DARTS on CIFAR-10 (arXiv 1904.12760, figure 4)."""

_BLOCK: Final = (("none", 0), ("msa", 1))

VIT: Final = Genotype(normal=_BLOCK, normal_concat=(2,), reduce=_BLOCK, reduce_concat=(2,))
"""Each cell is one block of a vision transformer."""
