"""The state of a network's training: weights, optimizer and the log of its epochs, with checkpoints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..models.checkpoints.errors import CheckpointError
from ..training.checkpoints import TrainingError, checkpoint_paths, read_checkpoint, write_checkpoint
from ..utils.suggest import printable
from .config import FitConfig

CHECKPOINTS: Final = "checkpoints"
_KEEP: Final = 2
_KEYS: Final = ("settings", "network", "best", "optimizer", "scaler", "progress")


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The log of an epoch.

    Args:
        epoch: From 1 on; 0 is the network before it is trained.
        loss: Mean loss of its steps.
        rate: Learning rate of its last step.
        seconds: Duration of its steps, without measurements.
        val_top1: Accuracy on held-out images after it, from 0 to 1; NaN if it was not measured.
        test_top1: Accuracy on test images after it; NaN if it was not measured.
    """

    epoch: int
    loss: float
    rate: float
    seconds: float
    val_top1: float = math.nan
    test_top1: float = math.nan


class FitState:
    """All that changes while a network is trained.

    Args:
        network: The network.
        optimizer: Its optimizer, as Fabric wraps it.
        scaler: The gradient scaler of half precision.
        config: How to train.
        settings: What else a resumed run must have in common with the one before.

    Attributes:
        epochs: The log.
        best: With ``patience``, the network's state after the epoch with the best accuracy on held-out images.
    """

    def __init__(
        self, network: nn.Module, optimizer: Any, scaler: Any, config: FitConfig, settings: Mapping[str, Any]
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.scaler: torch.amp.GradScaler | None = scaler
        self.config = config
        self.settings = {**config.to_dict(), **settings}
        self.epochs: list[Epoch] = []
        self.best: dict[str, Tensor] = {}

    @property
    def done(self) -> int:
        """Epochs that are done."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def best_epoch(self) -> Epoch:
        """The first epoch with the best accuracy on held-out images."""
        return max(self.epochs[1:], key=lambda epoch: epoch.val_top1)

    @property
    def is_complete(self) -> bool:
        """Whether all epochs are done, or the last ``patience`` ones are not better than the best one."""
        patience = self.config.patience
        stuck = patience and self.done and self.done - self.best_epoch.epoch >= patience
        return bool(stuck) or self.done == self.config.epochs

    def save(self, folder: Path, step: int) -> None:
        """Writes a checkpoint, as the state after ``step`` steps."""
        values = {
            "settings": self.settings, "network": self.network.state_dict(), "best": self.best,
            "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict() if self.scaler else {},
            "progress": {"step": step, "epochs": [list(dataclasses.astuple(epoch)) for epoch in self.epochs]},
        }  # fmt: skip
        write_checkpoint(folder / CHECKPOINTS, values, _KEEP)

    def load(self, folder: Path, values: Mapping[str, Any]) -> None:
        """Loads the values of the last checkpoint; it must be of the same run."""
        # An older version has no values of later fields.
        before = {**FitConfig().to_dict(), **values["settings"]}
        names = {**before, **self.settings}
        if changed := [name for name in names if before.get(name) != self.settings.get(name)]:
            raise TrainingError(
                f"{folder} has another run, which differs in {printable(', '.join(changed))}; use another name, or "
                "remove that folder to train anew"
            )
        try:
            load_network(self.network, values["network"])
            self.optimizer.load_state_dict(values["optimizer"])
            if self.scaler is not None and values["scaler"]:
                self.scaler.load_state_dict(values["scaler"])
            self.epochs = [Epoch(*figures) for figures in values["progress"]["epochs"]]
            self.best = values["best"]
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the last checkpoint in {folder} is of another network: {error}") from error


def read_last(folder: Path) -> dict[str, Any]:
    """The values of the last checkpoint, empty if there is none."""
    paths = checkpoint_paths(folder / CHECKPOINTS)
    return read_checkpoint(paths[-1], _KEYS) if paths else {}


def load_network(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads a network's state."""
    add_statistics(network, state)
    network.load_state_dict(state)


def add_statistics(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives norms without running statistics those that recalibration gave them before the state was saved."""
    for name, norm in network.named_modules():
        key = f"{name}.running_mean"
        if isinstance(norm, _BatchNorm) and norm.running_mean is None and key in state:
            device = next(network.parameters()).device
            norm.track_running_stats = True
            for statistic in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(norm, statistic, state[f"{name}.{statistic}"].to(device))
