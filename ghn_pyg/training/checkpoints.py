"""Training checkpoints: files with all that a run needs to resume."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from ..models.checkpoints.errors import CheckpointError
from ..models.checkpoints.torch_reader import load_weights
from ..utils.atomic_files import replacing

_NAME: Final = re.compile(r"step-(\d{9})\.pt")
_KEYS: Final = ("config", "data", "ghn", "average", "optimizer", "scaler", "progress")


class TrainingError(RuntimeError):
    """A run cannot start or continue."""


def checkpoint_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    folder = Path(folder)
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def write_checkpoint(folder: Path, state: Mapping[str, Any], keep: int) -> None:
    """Writes the checkpoint of a step and removes all but the last ``keep`` checkpoints.

    Raises:
        CheckpointError: If it cannot be written, for example on a full disk; older checkpoints stay unchanged.
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
        old.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a training checkpoint, which may contain tensors and plain values only: no code of the file is run.

    Raises:
        CheckpointError: If it cannot be read or is not a training checkpoint.
    """
    try:
        state = load_weights(path)
    except Exception as error:  # the errors of a damaged file are not documented
        message = f"cannot read the checkpoint {path}: {error}; remove it to resume from an older one"
        raise CheckpointError(message) from error
    if not isinstance(state, dict) or set(state) != set(_KEYS):
        raise CheckpointError(f"{path} is not a training checkpoint, expected one with {', '.join(_KEYS)}")
    return state
