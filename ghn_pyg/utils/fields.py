"""Checks of the fields of a configuration, whose errors name the field, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, get_args


def refuse(config: Any, field: str, expected: str) -> NoReturn:
    """Raises a ValueError for the value that a field has."""
    raise ValueError(f"{type(config).__name__}.{field} expected {expected}, got {getattr(config, field)!r}")


def check_choices(config: Any, choices: Mapping[str, Any]) -> None:
    """Raises a ValueError for a field that has none of the values of its ``Literal``."""
    for field, kind in choices.items():
        if getattr(config, field) not in get_args(kind):
            refuse(config, field, f"one of {', '.join(get_args(kind))}")


def check_integers(config: Any, least: Mapping[str, int]) -> None:
    """Raises a ValueError for a field that is no integer, or is less than the least."""
    for field, minimum in least.items():
        value = getattr(config, field)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            refuse(config, field, f"an integer of at least {minimum}")


def check_numbers(config: Any, fields: Iterable[str]) -> None:
    """Raises a ValueError for a field that is no finite number of at least 0."""
    for field in fields:
        value = getattr(config, field)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            refuse(config, field, "a number of at least 0")


def check_flags(config: Any, fields: Iterable[str]) -> None:
    """Raises a ValueError for a field that is neither true nor false."""
    for field in fields:
        if not isinstance(getattr(config, field), bool):
            refuse(config, field, "true or false")
