"""Configurations of meta-training runs as YAML files: the published recipes, and one's own."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from ..naming import similar
from .config import TrainConfig

_FOLDER: Final = Path(__file__).parent / "recipes"
_SUFFIXES: Final = (".yaml", ".yml")


class _Loader(yaml.SafeLoader):
    """Plain values alone, and 1e-3 is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package.

    Example:
        >>> "ghn3-t-cifar10" in recipe_names()
        True
    """
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_config(source: str | os.PathLike[str], changes: Sequence[str] = ()) -> TrainConfig:
    """Reads the configuration of a run.

    Args:
        source: The name of a recipe (see :func:`recipe_names`), or the path of a YAML file.
        changes: Fields that differ, as ``"name=value"`` with a value in YAML, such as ``"epochs=7"``,
            ``"ghn.layers=5"`` or ``"widths={widths: [8, 16]}"``.

    Raises:
        ValueError: If there is no such recipe or file, it is no YAML, or a field is unknown or has a bad value; near
            names are suggested.

    Example:
        >>> load_config("ghn3-t-cifar10", ["learning_rate=1e-3", "ghn.layers=5"]).ghn.layers
        5
    """
    values = _read(_find(os.fspath(source)))
    for change in changes:
        _change(values, change)
    return TrainConfig.from_dict(values)


def _find(source: str) -> Path:
    path = Path(source).expanduser()
    if path.suffix in _SUFFIXES or path.is_file():
        return path
    names = recipe_names()
    if source in names:
        return _FOLDER / f"{source}.yaml"
    near = similar(source, names)
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected a YAML file or one of {', '.join(names)}"
    raise ValueError(f"there is no recipe {source!r}; {hint}")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = _parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read the configuration {path}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"the configuration {path} holds no fields, expected lines such as epochs: 300")
    return values


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
        inner = place.setdefault(step, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{change!r} changes a part of {step}, which is {inner!r}; give the whole of it")
        place = inner
    place[last] = value
