"""The optimizer of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor

from ..utils.optional import require
from .config import TrainConfig

_MOMENTUM: Final = 0.9


def make_optimizer(parameters: Iterable[Tensor], config: TrainConfig, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimizer of a configuration, ``fused`` where PyTorch can.

    Example:
        >>> config = TrainConfig(ghn={}, optimizer="sgd", learning_rate=0.5, weight_decay=0)
        >>> make_optimizer([torch.nn.Parameter(torch.ones(3))], config).defaults["momentum"]
        0.9
    """
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "lamb":
        timm = require("timm.optim", extra="train", purpose="steps of LAMB")
        # As in the paper: gradients are clipped by the run, and weights without decay have trust ratios too.
        optimizer: torch.optim.Optimizer = timm.Lamb(parameters, max_grad_norm=None, always_adapt=True, **options)
        return optimizer
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=_MOMENTUM, nesterov=True, fused=fused, **options)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, fused=fused, **options)
