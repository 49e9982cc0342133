"""The state of a run: weights, their average, optimizer, gradient scaler and progress."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..models.ghn import GHN
from .checkpoints import Progress
from .config import TrainConfig
from .fabric import gradient_scaler

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class TrainingState:
    """All that changes during a run.

    Args:
        ghn: The GHN, on its device.
        config: The run.
        fabric: The engine.

    Attributes:
        ghn: The GHN.
        average: The moving average of its weights, if the run has one.
        optimizer: The optimizer, set up by Fabric.
        scaler: The gradient scaler of ``16-mixed``.
        progress: The progress of the run.
    """

    def __init__(self, ghn: GHN, config: TrainConfig, fabric: Fabric) -> None:
        self.ghn = ghn
        self.progress = Progress()
        self.scaler = gradient_scaler(fabric)
        # The fused optimizer updates all weights at once, 5 times faster; Fabric cannot clip with it and a scaler.
        self._fused = self.scaler is None
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        optimizer = kind(ghn.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=self._fused)
        self.optimizer: Any = fabric.setup_optimizers(optimizer)

        def update(averages: Any, weights: Any, count: Tensor | int) -> None:
            get_ema_multi_avg_fn(average_decay(config.ema, int(count)))(averages, weights, count)

        self.average = AveragedModel(ghn, multi_avg_fn=update) if config.ema else None

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
        groups = [{**group, "fused": self._fused} for group in state["optimizer"]["param_groups"]]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def average_decay(decay: float, count: int) -> float:
    r"""Decay of a moving average of :math:`t` steps, :math:`\min\left(\text{decay}, \frac{1 + t}{10 + t}\right)`.

    With a constant decay, the average of a short run would consist mostly of the initial weights.

    Example:
        >>> average_decay(0.998, 1), average_decay(0.998, 10_000)
        (0.18181818181818182, 0.998)
    """
    return min(decay, (1 + count) / (10 + count))
