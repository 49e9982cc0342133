"""Configurations as YAML files: plain values, checked names, and changes from the command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .suggest import choice, suggestion

SUFFIXES = (".yaml", ".yml")


class _Loader(yaml.SafeLoader):
    """Plain values alone, and 1e-3 is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def find_recipe(source: str, folder: Path) -> Path:
    """The file that a name stands for: a path, or one of the recipes in a folder.

    Raises:
        ValueError: If there is neither; near names are suggested.
    """
    path = Path(source).expanduser()
    if path.suffix in SUFFIXES or path.is_file():
        return path
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if source in names:
        return folder / f"{source}.yaml"
    hint = suggestion(source, names) or f"; expected a YAML file or one of {', '.join(names)}"
    raise ValueError(f"there is no recipe {source!r}{hint}")


def read_fields(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a YAML file, some of them changed.

    Args:
        path: The file.
        changes: Fields that differ, as ``"name=value"`` or ``"outer.name=value"`` with a value in YAML.

    Raises:
        ValueError: If it cannot be read, is no YAML or holds no fields, or a change is not written like this.
    """
    try:
        values = _parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read the configuration {path}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"the configuration {path} holds no fields, expected lines such as epochs: 300")
    for change in changes:
        _change(values, change)
    return values


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


def _parse(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except ValueError as error:  # a date that does not exist
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def _change(values: dict[str, Any], change: str) -> None:
    """Sets the field that ``change`` names."""
    name, equals, text = change.partition("=")
    if not equals or not name:
        raise ValueError(f"a change of the configuration is written name=value, got {change!r}")
    try:
        value = _parse(text)
    except yaml.YAMLError as error:
        raise ValueError(f"cannot read the value of {change!r}: {error}") from error
    *path, last = name.split(".")
    place = values
    for step in path:
        inner = {} if place.get(step) is None else place[step]
        if not isinstance(inner, dict):
            raise ValueError(f"{change!r} changes a part of {step}, which is {inner!r}; give the whole of it")
        place[step] = dict(inner)  # a copy, as an alias may stand for the same fields elsewhere
        place = place[step]
    place[last] = value
