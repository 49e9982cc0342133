"""Reads JSON of others: every name once, no other numbers than JSON has, and one kind of error."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: If it is not JSON, names a value twice, is nested too deeply, or has numbers that are not finite.

    Example:
        >>> parse_json('{"layers": 3}')
        {'layers': 3}
        >>> parse_json('{"layers": 3, "layers": 5}')
        Traceback (most recent call last):
        ValueError: its name 'layers' has several values
    """
    text = text if isinstance(text, str) else text.decode()
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def _finite(text: str) -> float:
    if (value := float(text)) - value:
        raise ValueError(f"its number {text:.20} is not finite")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"its name {name[:80]!r} has several values")
        values[name] = value
    return values
