"""What a benchmark of graph encoders is, as data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..models.config import GHNConfig
from ..models.encoders import ENCODERS
from ..utils.fields import check_fields, plain
from ..utils.suggest import choice
from ..utils.yaml_config import find_recipe, read_fields
from .checks import NAME
from .tasks import TASKS, Task

_FOLDER: Final = Path(__file__).parent / "recipes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Everything that a benchmark depends on.

    Args:
        tasks: What is measured, by name; see :data:`~ghn_pyg.bench.tasks.TASKS`.
        encoders: Which encoders; see :data:`~ghn_pyg.models.encoders.ENCODERS`.
        seeds: Each encoder is trained once with each.
        hidden_channels: Width :math:`d` of all encoders.
        layers: Layers of those that have some.
        heads: Attention heads of those that have some.

    Raises:
        ValueError: If a value is out of range; the message names the field.

    Example:
        >>> load_bench("encoders", ["seeds=[0]"]).seeds
        (0,)
    """

    tasks: Mapping[str, Task]
    encoders: tuple[str, ...] = tuple(ENCODERS)
    seeds: tuple[int, ...] = (0, 1, 2)
    hidden_channels: int = 32
    layers: int = 3
    heads: int = 4

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(f"BenchConfig.tasks expected at least one of {', '.join(TASKS)}")
        for name in self.tasks:
            if not NAME.fullmatch(name):
                raise ValueError(f"the name of a task expected letters, digits, '-', '_' and '.', got {name!r}")
        for field, kind in (("encoders", str), ("seeds", int)):
            values = getattr(self, field)
            if not all(type(value) is kind for value in values):
                raise ValueError(f"BenchConfig.{field} expected a list of {kind.__name__}, got {values!r}")
            if not values or len(set(values)) < len(values):
                raise ValueError(f"BenchConfig.{field} expected different values, at least one, got {values!r}")
        for seed in self.seeds:
            if seed < 0:
                raise ValueError(f"BenchConfig.seeds expected integers of at least 0, got {seed!r}")
        for encoder in self.encoders:
            self.ghn(encoder)

    def ghn(self, encoder: str) -> GHNConfig:
        """The GHN that an encoder is a part of."""
        kind = ENCODERS.get(encoder)
        return GHNConfig(
            encoder, hidden_channels=self.hidden_channels,
            layers=self.layers if kind is None or kind.layers else 0,
            heads=self.heads if kind is None or kind.heads else 0,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON and YAML."""
        values: dict[str, Any] = plain(dataclasses.asdict(self))
        for name, task in self.tasks.items():
            values["tasks"][name] = {"kind": task.kind, **values["tasks"][name]}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BenchConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: If a field is unknown, for which near names are suggested, missing or has a bad value.
        """
        check_fields(cls, values)
        tasks = values.get("tasks")
        if not isinstance(tasks, Mapping):
            raise ValueError(f"BenchConfig.tasks expected names of tasks, each with its fields, got {tasks!r}")
        fields = {name: _tuple(name, value) for name, value in values.items() if name != "tasks"}
        return cls(tasks={str(name): make_task(str(name), task) for name, task in tasks.items()}, **fields)


def _tuple(name: str, value: Any) -> Any:
    if name not in ("encoders", "seeds"):
        return value
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"BenchConfig.{name} expected a list, got {value!r}")
    return tuple(value)


def make_task(name: str, values: Any) -> Task:
    """A task by its kind, which by default is its name, and its fields."""
    if values is not None and not isinstance(values, Mapping):
        raise ValueError(f"the task {name!r} expected its fields, or nothing, got {values!r}")
    fields = dict(values or {})
    kind = str(fields.pop("kind", name))
    if kind not in TASKS:
        raise ValueError(f"there is no task {kind!r}{choice(kind, TASKS)}")
    check_fields(TASKS[kind], fields)
    lists = {field: tuple(value) for field, value in fields.items() if isinstance(value, list)}
    return TASKS[kind](**(fields | lists))


def load_bench(source: str | os.PathLike[str], changes: Sequence[str] = ()) -> BenchConfig:
    """Reads the configuration of a benchmark.

    Args:
        source: ``"encoders"``, which comes with the package, or the path of a YAML file.
        changes: Fields that differ, as ``"name=value"`` with a value in YAML, such as ``"seeds=[0]"`` or
            ``"tasks.parameters.count=5"``.

    Raises:
        ValueError: If there is no such file, it is no YAML, or a field is unknown or has a bad value.
    """
    return BenchConfig.from_dict(read_fields(find_recipe(os.fspath(source), _FOLDER), changes))
