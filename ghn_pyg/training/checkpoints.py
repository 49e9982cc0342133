"""Checkpoints of a run, and checks of its folder: it must have the same run, and no other process trains in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import torch
from filelock import FileLock, Timeout

from ..models.checkpoints.errors import CheckpointError
from ..utils.atomic_files import replacing, write_text
from ..utils.pickle_reader import read_pickle
from ..utils.suggest import printable
from .config import TrainConfig
from .state import Progress, TrainingState

CONFIG_FILE: Final = "train.json"
LOCK_FILE: Final = ".lock"
LOCK_TIMEOUT: Final = 5.0
"""Seconds: a killed run may hold its lock for a moment."""

_MAY_CHANGE: Final = (
    "images", "folder", "download", "skip_damaged", "compile", "node_budget", "widths", "checkpoint_every", "keep",
    "keep_every",
)  # fmt: skip
"""Fields that a resumed run may change. Most do not affect what is trained. ``images`` and ``folder`` are among them
because data may move; checkpoints have the name of the data set and the number of its images. ``widths`` is among them
because memory may not suffice; later networks have the new widths."""

_NAME: Final = re.compile(r"step-(\d{9})\.pt")
_KEYS: Final = ("config", "data", "ghn", "average", "optimizer", "scaler", "progress")


class TrainingError(RuntimeError):
    """A run cannot start or continue."""


def checkpoint_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    folder = Path(folder)
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def write_checkpoint(folder: Path, state: Mapping[str, Any], keep: int, kept_steps: int = 0) -> None:
    """Writes the checkpoint of a step and removes older ones than the last ``keep``.

    Those after each ``kept_steps`` steps stay.
    """
    path = folder / f"step-{state['progress']['step']:09d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Given a path instead of a stream, torch would hide why it could not write.
        with replacing(path) as temporary, open(temporary, "wb") as stream:
            torch.save(dict(state), stream)
    except (OSError, RuntimeError) as error:
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"cannot write the checkpoint {path}: {reason}; older ones are unchanged") from error
    for old in checkpoint_paths(folder)[:-keep]:
        step = int(old.stem.removeprefix("step-"))
        if not (kept_steps and step and step % kept_steps == 0):
            old.unlink(missing_ok=True)


def read_checkpoint(path: Path, keys: Sequence[str] = _KEYS) -> dict[str, Any]:
    """Reads a training checkpoint with these keys: tensors and plain values only; no code of the file is run."""
    try:
        state = read_pickle(path)
    except Exception as error:  # the errors of a damaged file are not documented
        message = f"cannot read the checkpoint {path}: {error}; remove it to resume from an older one"
        raise CheckpointError(message) from error
    if not isinstance(state, dict) or set(state) != set(keys):
        raise CheckpointError(f"{path} is not a training checkpoint, expected one with {', '.join(keys)}")
    return state


def lock_folder(folder: Path) -> AbstractContextManager[object]:
    """A context in which no other process can train in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / LOCK_FILE).acquire(timeout=LOCK_TIMEOUT)
    except Timeout as error:
        raise TrainingError(
            f"another process trains in {folder} and holds {LOCK_FILE}; wait until it ends, or use another folder"
        ) from error


def check_same_run(folder: Path, config: TrainConfig) -> None:
    """Raises a TrainingError if the folder has another run, or its configuration cannot be read."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError(f"expected fields, got {before!r}")
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"cannot read the configuration of the run, {path}: {error}; remove the file to resume with the given one"
        ) from error
    if changed := _changed_fields(before, config):
        raise TrainingError(
            f"{folder} has another run, which differs in {printable(', '.join(changed))}; use another "
            f"folder, or resume that run with the configuration in {path}"
        )


def _changed_fields(before: Mapping[str, Any], config: TrainConfig) -> list[str]:
    now = config.replace(ghn=config.ghn.shape).to_dict()
    # A run of an older version has no values of later fields, and was trained on all images.
    before = {**TrainConfig(ghn=config.ghn, held_out=0.0).to_dict(), **before}
    if isinstance(ghn := before.get("ghn"), Mapping):  # what it was trained for follows from the other fields
        before = {**before, "ghn": {name: value for name, value in ghn.items() if name != "trained_for"}}
    return [name for name in {**before, **now} if name not in _MAY_CHANGE and before.get(name) != now.get(name)]


def write_config(folder: Path, config: TrainConfig) -> None:
    """Writes the configuration of a run into its folder."""
    write_text(folder / CONFIG_FILE, json.dumps(config.to_dict(), indent=2) + "\n")


def load_checkpoint(state: TrainingState, path: Path, config: TrainConfig, data: str) -> None:
    """Loads the state of a run from a checkpoint, which must have the same configuration and data."""
    values = read_checkpoint(path)
    try:
        if changed := _changed_fields(values["config"], config):
            raise ValueError(f"it differs in {', '.join(changed)}")
        if values["data"] != data:
            raise ValueError(f"it was trained on {values['data']}, not on {data}")
        state.load_weights(values)
        state.progress = Progress(**values["progress"])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint {path} is of another run: {error}") from error
