"""Learning rates as functions of the step, so that there is no state to save."""

from __future__ import annotations

import math

from .config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    r"""The learning rate of a step.

    With ``"cosine"`` it rises linearly during the warm-up and is
    :math:`\tfrac{1}{2} r (1 + \cos \pi t)` after it, with :math:`t` from 0 to 1 over the rest of the run. With
    ``"steps"`` it is :math:`0.1^k r` after :math:`k` milestones.

    Args:
        config: The run.
        step: From 0 on.
        steps_per_epoch: Steps in an epoch.

    Example:
        >>> from ghn_pyg.training.load_config import load_config
        >>> config = load_config("ghn2-cifar10")
        >>> [round(learning_rate(config, epoch * 7, 7), 6) for epoch in (199, 200, 250)]
        [0.001, 0.0001, 1e-05]
    """
    epoch, rate = step / steps_per_epoch, config.learning_rate
    if config.schedule == "steps":
        return rate * 0.1 ** sum(epoch >= milestone for milestone in config.milestones)
    if epoch < config.warmup_epochs:
        return config.warmup_rate + (rate - config.warmup_rate) * epoch / config.warmup_epochs
    rest = max(config.epochs - config.warmup_epochs, 1)
    return rate * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / rest)) / 2


def average_decay(decay: float, steps: int) -> float:
    r"""Decay of a moving average after so many steps, :math:`\min\left(\text{decay}, \frac{1 + t}{10 + t}\right)`.

    With the full decay from the start, the average of a short run would be mostly the weights that it began with.

    Args:
        decay: The decay in the long run.
        steps: Steps :math:`t` that are in the average already.

    Example:
        >>> average_decay(0.998, 1), average_decay(0.998, 10_000)
        (0.18181818181818182, 0.998)
    """
    return min(decay, (1 + steps) / (10 + steps))
