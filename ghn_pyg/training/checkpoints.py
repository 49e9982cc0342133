"""Training checkpoints: files with all that a run needs to resume."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from ..models.checkpoints.key_names import CheckpointError, strip_wrappers
from ..models.checkpoints.unpickler import load_weights
from ..utils.atomic_files import replacing

_NAME: Final = re.compile(r"step-(\d{9})\.pt")
_KEYS: Final = ("config", "data", "ghn", "average", "optimizer", "scaler", "progress")


@dataclasses.dataclass
class Progress:
    """The progress of a run. It has no state of random generators: all seeds are functions of the step.

    Args:
        step: The next step.
        skipped: Skipped steps so far: their loss or gradient was not finite.
        skipped_in_a_row: Skipped steps since the last good step or roll-back.
        rollbacks: Roll-backs so far.
        rollbacks_in_a_row: Roll-backs since the last good step.
        loss_sum: Sum of the losses of the good steps since the last checkpoint.
        loss_count: Number of these steps.
        best: The lowest mean loss between two checkpoints so far.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    rollbacks: int = 0
    rollbacks_in_a_row: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    best: float | None = None


def checkpoint_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    folder = Path(folder)
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def write_checkpoint(folder: Path, state: Mapping[str, Any], keep: int) -> Path:
    """Writes a checkpoint and removes old ones.

    Args:
        folder: Folder of the checkpoints, created if missing.
        state: ``config``, ``data``, ``ghn``, ``average``, ``optimizer``, ``scaler`` and ``progress``. Prefixes of
            compiled modules are removed from the names of the GHN's tensors.
        keep: Number of checkpoints to keep.

    Raises:
        CheckpointError: If it cannot be written, for example on a full disk; older checkpoints stay unchanged.
    """
    path = folder / f"step-{state['progress']['step']:09d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Given a path instead of a stream, torch would hide why it could not write.
        with replacing(path) as temporary, open(temporary, "wb") as stream:
            torch.save({**state, "ghn": strip_wrappers(state["ghn"])}, stream)
    except (OSError, RuntimeError) as error:
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"cannot write the checkpoint {path}: {reason}; older ones are unchanged") from error
    for old in checkpoint_paths(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a training checkpoint. It may contain tensors and plain values only: no code of the file is run.

    Raises:
        CheckpointError: If it cannot be read or is not a training checkpoint.
    """
    try:
        state = load_weights(path)
    except Exception as error:  # the errors of a damaged file are not documented
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {error}; remove it to resume from an older one"
        ) from error
    if not isinstance(state, dict) or set(state) != set(_KEYS):
        raise CheckpointError(f"{path} is not a training checkpoint, expected one with {', '.join(_KEYS)}")
    return state
