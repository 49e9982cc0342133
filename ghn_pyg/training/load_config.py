"""Configurations of meta-training runs as YAML files: the published recipes, and one's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..utils.yaml_config import find_recipe, read_fields
from .config import TrainConfig

_FOLDER: Final = Path(__file__).parent / "recipes"


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
    return TrainConfig.from_dict(read_fields(find_recipe(os.fspath(source), _FOLDER), changes))
