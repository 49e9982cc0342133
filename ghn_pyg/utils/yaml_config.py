"""Configurations as YAML files, with changes from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .suggest import suggestion


class _Loader(yaml.SafeLoader):
    """Reads plain values only, and 1e-3 as a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def find_recipe(source: str, folder: Path) -> Path:
    """The YAML file of a path, or of the name of a recipe in ``folder``."""
    path = Path(source).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if source in names:
        return folder / f"{source}.yaml"
    hint = suggestion(source, names) or f"; expected a YAML file or one of {', '.join(names)}"
    raise ValueError(f"there is no recipe {source!r}{hint}")


def read_fields(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Reads the fields of a YAML file and applies changes such as ``"ghn.layers=5"``, with values in YAML."""
    try:
        values = _parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read the configuration {path}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"the configuration {path} has no fields, expected lines such as epochs: 300")
    apply_changes(values, changes)
    return values


def apply_changes(values: dict[str, Any], changes: Sequence[str]) -> None:
    """Applies changes such as ``"ghn.layers=5"``, with values in YAML, to fields.

    Example:
        >>> fields = {"epochs": 3}
        >>> apply_changes(fields, ["ghn.layers=5"])
        >>> fields
        {'epochs': 3, 'ghn': {'layers': 5}}
    """
    for change in changes:
        _apply(change, values)


def _parse(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    finally:
        loader.dispose()


def _apply(change: str, values: dict[str, Any]) -> None:
    name, equals, text = change.partition("=")
    if not equals or not name:
        raise ValueError(f"expected a change of the form name=value, got {change!r}")
    try:
        value = _parse(text)
    except (ValueError, yaml.YAMLError) as error:  # ValueError: a date that does not exist
        raise ValueError(f"cannot read the value of {change!r}: {error}") from error
    *groups, field = name.split(".")
    for group in groups:
        inner = {} if values.get(group) is None else values[group]
        if not isinstance(inner, dict):
            raise ValueError(f"{change!r} changes a field of {group}, which is {inner!r}; give all its fields")
        values[group] = dict(inner)  # a copy: a YAML alias may refer to the same fields elsewhere
        values = values[group]
    values[field] = value
