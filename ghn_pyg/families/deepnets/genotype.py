"""Genotypes: the operations and wiring of an architecture's cells, as in DARTS (arXiv 1806.09055)."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, ValidationInfo, field_validator

from ...utils.config import Config
from ...utils.suggest import choice

OPERATIONS: Final = (
    "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
    "dil_conv_5x5", "conv_1x1", "conv_7x1_1x7", "conv_3x3", "conv_5x5", "conv_7x7", "msa", "cse",
)  # fmt: skip
"""Names of the operations between the states of a cell."""

LARGE_KERNELS: Final = frozenset(("conv_5x5", "conv_7x7"))
"""The operations with the most parameters; a sampled cell has at most one."""

PARAMETERLESS: Final = frozenset(("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect"))
"""Operations without parameters (a skip connection has some where it strides)."""

Branch = tuple[str, int]
"""An operation and its input state."""

_Branches = Annotated[tuple[Annotated[Branch, Field(strict=False)], ...], Field(strict=False)]
_States = Annotated[tuple[int, ...], Field(strict=False)]


class Genotype(Config):
    r"""The normal and the reduction cell of an architecture.

    A cell has the states :math:`h_0, h_1` (the outputs of the two cells before it, the nearest last) and one state
    :math:`h_2, h_3, \dots` for each step, :math:`h_i = a(h_j) + b(h_k)` with :math:`j, k < i`. Its output
    concatenates some of the steps. Lists are converted to tuples.

    Args:
        normal: Branches of a normal cell as (operation, input state), two per step.
        normal_concat: States that a normal cell's output concatenates.
        reduce: Branches of a reduction cell.
        reduce_concat: States that a reduction cell's output concatenates.

    Raises:
        ConfigError: If a field is missing or malformed, an operation is unknown or a state does not exist.

    Example:
        >>> cell = [("conv_3x3", 0), ("skip_connect", 1)]
        >>> Genotype(cell, [2], cell, [2]).steps
        1
    """

    normal: _Branches
    normal_concat: _States
    reduce: _Branches
    reduce_concat: _States

    def __init__(self, *values: Any, **fields: Any) -> None:
        super().__init__(**dict(zip(type(self).model_fields, values, strict=False)), **fields)

    @field_validator("normal", "reduce")
    @classmethod
    def _check_branches(cls, branches: tuple[Branch, ...]) -> tuple[Branch, ...]:
        if not branches or len(branches) % 2:
            raise ValueError(f"expected two branches for each step and at least one step, not {len(branches)}")
        for position, (name, state) in enumerate(branches):
            step = position // 2
            if name not in OPERATIONS:
                raise ValueError(f"has an unknown operation {name!r} in step {step}{choice(name, OPERATIONS)}")
            if not 0 <= state < step + 2:
                raise ValueError(f"expected states 0 to {step + 1} in step {step}, not {state}")
        return branches

    @field_validator("normal_concat", "reduce_concat")
    @classmethod
    def _check_concat(cls, states: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        last = len(info.data.get(str(info.field_name).removesuffix("_concat"), states)) // 2 + 1
        if not states or len(set(states)) < len(states) or not all(2 <= state <= last for state in states):
            raise ValueError(f"expected distinct states from 2 to {last}")
        return states

    @property
    def steps(self) -> int:
        """The larger number of steps of the two cells."""
        return max(len(self.normal), len(self.reduce)) // 2

    @property
    def operations(self) -> frozenset[str]:
        """Names of the operations in either cell."""
        return frozenset(name for name, _ in (*self.normal, *self.reduce))


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
"""The cells that DARTS found, second order (arXiv 1806.09055, figures 4 and 5)."""

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
"""The cells that Progressive DARTS found on CIFAR-10 (arXiv 1904.12760, figure 4)."""

_BLOCK: Final = (("none", 0), ("msa", 1))

VIT: Final = Genotype(normal=_BLOCK, normal_concat=(2,), reduce=_BLOCK, reduce_concat=(2,))
"""Each cell is one block of a vision transformer."""
