"""The state of a run: weights, their average, optimizer, gradient scaler and progress."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..models.ghn import GHN
from .config import TrainConfig
from .optimizer import make_optimizer

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclasses.dataclass
class Progress:
    """The progress of a run. It has no state of random generators: all seeds are functions of the step.

    Args:
        step: The next step.
        skipped: Skipped steps so far: their loss or gradient was not finite.
        skipped_in_a_row: Skipped steps since the last good step or roll-back.
        rollbacks: Roll-backs so far.
        rollbacks_in_a_row: Roll-backs since the run was last stable, with as many good steps in a row as bad ones roll
            it back.
        good_in_a_row: Good steps since the last skipped step or roll-back.
        left_out: Networks left out so far, as memory did not suffice.
        loss_sum: Sum of the losses of the good steps since the last checkpoint.
        loss_count: Number of these steps.
        best: The lowest validation error so far or, without held-out images, the lowest mean loss between checkpoints.
        source: Where the weights before the first step came from.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    rollbacks: int = 0
    rollbacks_in_a_row: int = 0
    good_in_a_row: int = 0
    left_out: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    best: float | None = None
    source: str = ""


class TrainingState:
    """All that changes during the run of a GHN; ``average`` is for an exponential moving average of its weights."""

    def __init__(self, ghn: GHN, config: TrainConfig, fabric: Fabric) -> None:
        self.ghn = ghn
        self.progress = Progress()
        self.scaler: torch.amp.GradScaler | None = getattr(fabric.strategy.precision, "scaler", None)
        # The fused optimizer updates all weights at once, 5 times faster; Fabric cannot clip with it and a scaler.
        self._fused = self.scaler is None
        optimizer = make_optimizer(ghn.parameters(), config, fused=self._fused)
        self.optimizer: Any = fabric.setup_optimizers(optimizer)

        def update(averages: Any, weights: Any, count: Tensor | int) -> None:
            # With a constant decay, the average of a short run would consist mostly of the initial weights.
            decay = min(config.ema, (1 + int(count)) / (10 + int(count)))
            get_ema_multi_avg_fn(decay)(averages, weights, count)

        self.average = AveragedModel(ghn, multi_avg_fn=update) if config.ema else None

    @property
    def is_good(self) -> bool:
        """Whether the weights can be kept: the last steps were good, and the norm of the weights is finite."""
        if self.progress.skipped_in_a_row or self.progress.rollbacks_in_a_row:
            return False
        norms = [torch.nn.utils.get_total_norm(ghn.parameters()) for ghn in (self.ghn, self.trained_ghn)]
        return all(math.isfinite(norm) for norm in norms)

    @property
    def trained_ghn(self) -> GHN:
        """The average of the GHN over all steps if the run has one, else the GHN."""
        return self.ghn if self.average is None else cast(GHN, self.average.module)

    def state_dict(self) -> dict[str, Any]:
        """The state as tensors and plain values."""
        return {
            "ghn": self.ghn.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
            "progress": dataclasses.asdict(self.progress),
        }

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """Loads weights, average, optimizer and scaler, but not the progress."""
        self.ghn.load_state_dict(state["ghn"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        # A run may move between a GPU and a CPU, where 16-mixed has no scaler.
        fused = {"fused": self._fused} if "fused" in self.optimizer.defaults else {}
        groups = [{**group, **fused} for group in state["optimizer"]["param_groups"]]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
