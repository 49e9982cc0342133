"""Checks of the fields of tasks, by the types of their defaults."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, Final

NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
"""What names files: nothing that leaves a folder."""


def check_task(task: Any) -> None:
    """Raises a ValueError for a field that is not like its default.

    Whole numbers are at least 1, others at least 0, and texts any; a list whose default has items has some as well.
    """
    for field in dataclasses.fields(task):
        value = getattr(task, field.name)
        if isinstance(field.default, tuple):
            inner = field.default[0] if field.default else ""
            empty = bool(field.default) and not value
            if not isinstance(value, tuple) or empty or not all(_fits(one, inner) for one in value):
                _refuse(task, field.name, f"a list, each of it {_expected(inner)}")
        elif not _fits(value, field.default):
            _refuse(task, field.name, _expected(field.default))


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, str):
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if isinstance(default, int):
        return isinstance(value, int) and value >= 1
    return 0 <= value < math.inf


def _expected(default: Any) -> str:
    if isinstance(default, str):
        return "a text"
    return "a whole number of at least 1" if isinstance(default, int) else "a number of at least 0"


def _refuse(task: Any, name: str, expected: str) -> None:
    raise ValueError(f"{type(task).__name__}.{name} expected {expected}, got {getattr(task, name)!r}")
