"""Checks of fields of dataclasses, for WidthRule and bench until they use :mod:`ghn_pyg.utils.config`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from .suggest import choice


def check_flags(config: Any, fields: Iterable[str]) -> None:
    """Raises a ValueError for a field that is neither true nor false."""
    for field in fields:
        if not isinstance(getattr(config, field), bool):
            value = getattr(config, field)
            raise ValueError(f"{type(config).__name__}.{field} expected true or false, got {value!r}")


def check_fields(kind: Any, values: Mapping[str, Any]) -> None:
    """Raises a ValueError for a name that is no field of a dataclass; near names are suggested."""
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            raise ValueError(f"{kind.__name__} has no field {name!r}{choice(name, known)}")


def plain(value: Any) -> Any:
    """A configuration as values that JSON and YAML have."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
