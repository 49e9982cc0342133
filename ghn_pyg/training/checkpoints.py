"""Training checkpoints: all that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from ..models.checkpoints.errors import CheckpointError
from ..models.checkpoints.published_keys import strip_wrappers
from ..models.checkpoints.torch_reader import load_weights
from ..utils.atomic_files import replacing

_NAME: Final = re.compile(r"step-(\d{9})\.pt")
_PARTS: Final = ("config", "data", "ghn", "average", "optimizer", "scaler", "progress")


@dataclasses.dataclass
class Progress:
    """How far a run is.

    Random generators have no state in it: whatever is drawn is a function of the seed, the step and the rank.

    Args:
        step: The next step.
        skipped: Steps so far that were left out, as their loss or gradient was not finite.
        skipped_in_a_row: Those since the last good step, or the last roll-back.
        rollbacks: Roll-backs so far.
        rollbacks_in_a_row: Those since the last good step.
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
    """The checkpoints in a folder, the oldest first."""
    folder = Path(folder)
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def write_checkpoint(folder: Path, state: Mapping[str, Any], keep: int) -> Path:
    """Writes a checkpoint, then removes the oldest but ``keep``.

    Args:
        folder: Where it goes; made if missing.
        state: ``config``, ``data``, ``ghn``, ``average``, ``optimizer``, ``scaler`` and ``progress``. Prefixes that
            compiling puts in front of the names of the GHN's tensors are removed.
        keep: How many checkpoints stay.

    Raises:
        CheckpointError: If it cannot be written, as on a full disk; older checkpoints stay as they were.
    """
    path = folder / f"step-{state['progress']['step']:09d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # With a path in place of a stream, torch would keep to itself why it could not write.
        with replacing(path) as unfinished, open(unfinished, "wb") as stream:
            torch.save({**state, "ghn": strip_wrappers(state["ghn"])}, stream)
    except (OSError, RuntimeError) as error:
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"cannot write the checkpoint {path}: {reason}; older ones are as they were") from error
    for old in checkpoint_paths(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def read_training_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, without running anything that it contains.

    Raises:
        CheckpointError: If it cannot be read or holds something else.
    """
    try:
        state = load_weights(path)
    except Exception as error:  # what a damaged file leads to is not documented
        message = f"cannot read the checkpoint {path}: {error}; remove it to go on from an older one"
        raise CheckpointError(message) from error
    if not isinstance(state, dict) or set(state) != set(_PARTS):
        raise CheckpointError(f"{path} is no training checkpoint, expected one with {', '.join(_PARTS)}")
    return state
