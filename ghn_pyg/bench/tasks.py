"""The tasks of the benchmark by name."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final, Protocol

from ..models.config import GHNConfig
from .cost import CostTask
from .graph_regression import LongRangeTask, ZINCTask
from .parameter_prediction import ParameterTask
from .property_prediction import PropertyTask


class Task(Protocol):
    """What is measured of an encoder.

    Attributes:
        kind: Name of the task in :data:`TASKS`.
        sign: 1 if more is better, -1 if less is.
    """

    kind: ClassVar[str]
    sign: ClassVar[int]

    def run(self, ghn: GHNConfig, seed: int, folder: Path) -> dict[str, float]:
        """Measures an encoder.

        Args:
            ghn: Its name, width, layers and heads.
            seed: Seed of everything that is drawn.
            folder: Where the task keeps what takes long to make; a run that was stopped goes on with it.

        Returns:
            Figures by name.
        """
        ...


TASKS: Final[dict[str, type[Task]]] = {
    task.kind: task for task in (ParameterTask, PropertyTask, ZINCTask, LongRangeTask, CostTask)
}
