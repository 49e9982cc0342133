"""Small networks first: a GHN learns from them sooner, and what it learns holds for large ones."""

from __future__ import annotations

import dataclasses

from .architecture import Architecture
from .sampling import SEARCH_SPACES, fits, split_of

MOST_CELLS = SEARCH_SPACES["train"].cells[1]


@dataclasses.dataclass(frozen=True)
class Curriculum:
    r"""How many cells networks have at most, which grows from one to all during the first steps.

    At step :math:`t` of :math:`T` it is :math:`18^{t/T}`, rounded down: it takes as long from 1 cell to 2 as from 9 to
    18. A GHN learns the most while networks are small, and a step with small networks is the cheapest.

    Args:
        steps: From this step on there is no limit.

    Raises:
        ValueError: If ``steps`` is negative.

    Example:
        >>> curriculum = Curriculum(360)
        >>> [curriculum.limit(step) for step in (0, 100, 359)]
        [1, 2, 17]
    """

    steps: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps expected a number of at least 0, got {self.steps}")

    def limit(self, step: int) -> int:
        """The largest number of cells at a step before the last one."""
        return int(MOST_CELLS ** (step / self.steps))

    def apply(self, architecture: Architecture, step: int) -> Architecture:
        """The architecture, cut to the largest number of cells with which it is one for training as well.

        An architecture that with fewer cells would belong to another split, would be too large (a classifier on a map
        that is not reduced) or whose output would not depend on the input, keeps the next larger number of cells.

        Args:
            architecture: Any.
            step: Which step of training it is for.
        """
        if step >= self.steps:
            return architecture
        split = split_of(architecture)
        for cells in range(self.limit(step), architecture.cells):
            small = dataclasses.replace(architecture, cells=cells)
            if split_of(small) == split and fits(small, SEARCH_SPACES[split]):
                return small
        return architecture
