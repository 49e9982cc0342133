"""Bad steps, whose loss or gradient is not finite: they are skipped, and too many in a row roll the run back.

A run that skips most of its steps ends with an error.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .checkpoints import TrainingError, checkpoint_paths, read_checkpoint
from .state import Progress, TrainingState

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MIN_SCALE: Final = 1024.0
"""Smallest loss scale of half precision."""

_logger = logging.getLogger(__name__)


def clip_and_step(state: TrainingState, fabric: Fabric, clip: float, *, finite: bool) -> float:
    """Clips the gradient and takes a step, unless something is not finite; returns the norm before clipping."""
    norm = math.nan
    if finite:
        tensor: Any = fabric.clip_gradients(
            state.ghn, state.optimizer, max_norm=clip or math.inf, error_if_nonfinite=False
        )
        norm = float(tensor)
    if math.isfinite(norm):
        state.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(state.ghn)
    elif (scaler := state.scaler) is not None:
        # Set by hand: the scaler would take the step if gradients are finite and only their norm overflows.
        scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": 0})
        scaler.update(max(scaler.get_scale() * scaler.get_backoff_factor(), MIN_SCALE))
    return norm


def record_step(state: TrainingState, loss: float, max_skipped: int, *, left_out: int, skipped: bool) -> None:
    """Counts a step. After ``max_skipped`` good ones in a row, earlier roll-backs do not count."""
    progress = state.progress
    progress.step += 1
    progress.left_out += left_out
    if skipped:
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        progress.good_in_a_row = 0
        _logger.warning("step %d skipped: its loss or gradient is not finite", progress.step - 1)
    else:
        progress.skipped_in_a_row = 0
        progress.good_in_a_row += 1
        if progress.good_in_a_row >= max_skipped:
            progress.rollbacks_in_a_row = 0
        progress.loss_sum += loss
        progress.loss_count += 1


def roll_back(state: TrainingState, checkpoints: Path) -> None:
    """Loads the weights of the last checkpoint, or of an older one after another roll-back; data are new ones."""
    progress, paths = state.progress, checkpoint_paths(checkpoints)
    if progress.rollbacks_in_a_row >= len(paths):
        raise TrainingError(
            f"step {progress.step}: losses or gradients are not finite, also from each of the {len(paths)} checkpoints "
            f"in {checkpoints} on; {_remedy(progress)}"
        )
    path = paths[-1 - progress.rollbacks_in_a_row]
    state.load_weights(read_checkpoint(path))
    progress.skipped_in_a_row = progress.good_in_a_row = 0
    progress.loss_sum, progress.loss_count = 0.0, 0  # losses of the weights that were given up
    progress.rollbacks += 1
    progress.rollbacks_in_a_row += 1
    _logger.warning("rolled back to %s, continuing with step %d", path.name, progress.step)


def check_skipped(progress: Progress, checkpoints: Path) -> None:
    """Raises a TrainingError if most steps were skipped."""
    if 2 * progress.skipped > progress.step:
        raise TrainingError(
            f"{progress.skipped:,} of {progress.step:,} steps were skipped, as losses or gradients are not finite; "
            f"{_remedy(progress)}; good weights are in {checkpoints}"
        )


def _remedy(progress: Progress) -> str:
    lower = "lower learning_rate in another folder"
    if not progress.left_out:
        return lower
    return f"resume with smaller widths, as {progress.left_out:,} times a network did not fit into memory, or {lower}"
