"""The folder of a run, and whether it holds the run that is to be gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from ..utils.atomic_files import replacing
from .config import TrainConfig

CONFIG_FILE: Final = "train.json"
LOCK_FILE: Final = ".lock"

_PATIENCE: Final = 5.0
"""Seconds: what is left of a killed run may hold its lock for a moment."""

_KEEPING: Final = ("images", "folder", "download", "compile", "node_budget", "checkpoint_every", "keep")
"""Fields that say where data lies, how it is computed with and how much is kept, not what is trained."""


class TrainingError(RuntimeError):
    """A run cannot start or go on."""


def check_same_run(folder: Path, config: TrainConfig) -> None:
    """Raises a ValueError where a folder holds another run, or what it is cannot be read.

    What says nothing of what is trained may change within a run: ``images`` and ``folder``, as data may move
    (checkpoints tell the name of the data and how many images it has), ``download``, ``compile``, ``node_budget``,
    ``checkpoint_every`` and ``keep``.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError(f"expected fields, got {before!r}")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot read the configuration of the run, {path}: {error}; remove the file to go on with the "
            "configuration that is given"
        ) from error
    if odd := differences(before, config):
        raise ValueError(
            f"{folder} holds another run, which differs in {', '.join(odd)}; take another folder, or the "
            f"configuration of {path} to go on with that run"
        )


def differences(before: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """Fields of a run, by the configuration that it began with, which a configuration would change."""
    now = config.to_dict()
    return [name for name in {**before, **now} if name not in _KEEPING and before.get(name) != now.get(name)]


def occupy(folder: Path) -> AbstractContextManager[object]:
    """Keeps other processes out of a folder until the end of the context that it returns.

    Raises:
        TrainingError: If another process keeps this one out.
    """
    try:
        return FileLock(folder / LOCK_FILE).acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise TrainingError(
            f"another process trains in {folder} and holds {LOCK_FILE} there; wait for its end to go on with the run, "
            "or take another folder"
        ) from error


def write_config(folder: Path, config: TrainConfig) -> None:
    """Writes the configuration of a run into its folder."""
    with replacing(folder / CONFIG_FILE) as unfinished:
        unfinished.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
