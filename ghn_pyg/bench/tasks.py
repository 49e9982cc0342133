"""The tasks that encoders are compared on, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ..utils.suggest import choice
from .base_task import Task
from .encoder_time_and_memory import CostTask
from .graph_tasks import LongRangeTask, ZINCTask
from .parameter_prediction import ParameterTask
from .property_prediction import PropertyTask

TASKS: Final[dict[str, type[Task]]] = {
    task.kind: task for task in (ParameterTask, PropertyTask, ZINCTask, LongRangeTask, CostTask)
}


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
