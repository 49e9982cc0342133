"""The configuration of a benchmark of graph encoders, and its tasks by name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, NonNegativeInt, field_serializer, field_validator, model_validator

from ..models import ENCODERS, GHNConfig
from ..utils.config import Config
from ..utils.suggest import choice
from ..utils.yaml_config import find_recipe, read_fields
from .base_task import Task, Texts
from .encoder_time_and_memory import CostTask
from .graph_tasks import LongRangeTask, ZINCTask
from .parameter_prediction import ParameterTask
from .property_prediction import PropertyTask

TASKS: Final[dict[str, type[Task]]] = {
    task.kind: task for task in (ParameterTask, PropertyTask, ZINCTask, LongRangeTask, CostTask)
}

_FOLDER: Final = Path(__file__).parent / "recipes"


def make_task(name: str, fields: Any) -> Task:
    """Makes a task from its fields, among them ``kind``, its key in :data:`TASKS`; by default it is the name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):  # it names a folder
        raise ValueError(f"a task's name expected letters, digits, '-', '_' and '.', got {name!r}")
    if isinstance(fields, Task):
        return fields
    if not isinstance(fields, Mapping | None):
        raise ValueError(f"the task {name!r} expected fields such as epochs: 5, got {fields!r}")
    values = dict(fields or {})
    kind = str(values.pop("kind", name))
    if kind not in TASKS:
        raise ValueError(f"there is no task {kind!r}{choice(kind, TASKS)}")
    return TASKS[kind](**values)


class BenchConfig(Config):
    """A benchmark of graph encoders.

    Args:
        tasks: The tasks by name; see :data:`TASKS` and :func:`make_task`.
        encoders: Names of encoders; see :data:`~ghn_pyg.models.encoders.ENCODERS`.
        seeds: Each task is run with each encoder and seed.
        hidden_channels: Width :math:`d` of all encoders.
        layers: Layers of encoders that have a number of layers.
        heads: Attention heads of encoders with attention.

    Raises:
        ValueError: If a field is unknown, for which similar names are suggested, is missing or has a bad value.

    Example:
        >>> load_bench("encoders", ["seeds=[0]"]).seeds
        (0,)
    """

    tasks: dict[str, Task]
    encoders: Annotated[Texts, Field(min_length=1)] = tuple(ENCODERS)
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(strict=False, min_length=1)] = (0, 1, 2)
    hidden_channels: int = 32
    layers: int = 3
    heads: int = 4

    @field_validator("tasks", mode="before")
    @classmethod
    def _make_tasks(cls, tasks: Any) -> dict[str, Task]:
        if not isinstance(tasks, Mapping) or not tasks:
            raise ValueError(f"expected one or more of {', '.join(TASKS)}, each with its fields")
        return {str(name): make_task(str(name), fields) for name, fields in tasks.items()}

    @field_serializer("tasks")
    def _plain_tasks(self, tasks: dict[str, Task]) -> dict[str, Any]:
        return {name: task.to_dict() for name, task in tasks.items()}

    @field_validator("encoders", "seeds")
    @classmethod
    def _all_different(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("expected different values")
        return values

    @model_validator(mode="after")
    def _check_encoders(self) -> Self:
        for encoder in self.encoders:
            self.ghn(encoder)
        return self

    def ghn(self, encoder: str) -> GHNConfig:
        """The configuration of the GHN with this encoder."""
        kind = ENCODERS.get(encoder)
        return GHNConfig(
            encoder=encoder,
            hidden_channels=self.hidden_channels,
            layers=self.layers if kind is None or kind.layers else 0,
            heads=self.heads if kind is None or kind.heads else 0,
        )


def load_bench(source: str | os.PathLike[str], changes: Sequence[str] = ()) -> BenchConfig:
    """Reads the configuration of a benchmark.

    Args:
        source: ``"encoders"``, which comes with the package, or the path of a YAML file.
        changes: Changed fields as ``"name=value"``, with a value in YAML, such as ``"seeds=[0]"`` or
            ``"tasks.parameters.count=5"``.

    Raises:
        ValueError: If the file is missing or is no YAML, or a field is unknown or has a bad value.
    """
    return BenchConfig.from_dict(read_fields(find_recipe(os.fspath(source), _FOLDER), changes))
