"""A curriculum from small to large networks: a GHN learns sooner from small ones, and it carries over to large ones."""

from __future__ import annotations

import dataclasses

from .architecture import Architecture
from .architecture_sampling import SEARCH_SPACES, is_valid, split_of

MAX_CELLS = SEARCH_SPACES["train"].cells[1]


@dataclasses.dataclass(frozen=True)
class Curriculum:
    r"""A limit on the number of cells that grows during the first steps of training.

    At step :math:`t` of :math:`T` it is :math:`\lfloor 18^{t/T} \rfloor`: doubling from 1 to 2 cells takes as long as
    from 9 to 18. A GHN learns the most while networks are small, and their steps are the cheapest.

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
            raise ValueError(f"steps expected at least 0, got {self.steps}")

    def limit(self, step: int) -> int:
        """The largest number of cells at a step below ``steps``."""
        return int(MAX_CELLS ** (step / self.steps))

    def apply(self, architecture: Architecture, step: int) -> Architecture:
        """Shortens an architecture to the limit, or to the next larger number of cells that keeps it valid.

        With too few cells an architecture may belong to another split, be too large (a classifier on a feature map
        that is not reduced), or have an output that does not depend on the input.

        Args:
            architecture: The architecture.
            step: The training step.
        """
        if step >= self.steps:
            return architecture
        split = split_of(architecture)
        shortened = (architecture.replace(cells=cells) for cells in range(self.limit(step), architecture.cells))
        return next((short for short in shortened if is_valid(short, split)), architecture)
