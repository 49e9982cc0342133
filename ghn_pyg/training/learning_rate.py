"""Learning rates of meta-training and fine-tuning.

They are functions of the step, which a resumed or rolled back run just goes on with. Schedulers of PyTorch have a state
to save: their learning rate is a product over all earlier steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from .config import TrainConfig


def scheduled_rate(
    step: int, *, schedule: Literal["cosine", "constant", "steps"] = "cosine", peak: float, steps: int,
    warmup_steps: float = 0, warmup_rate: float | None = None, milestones: Sequence[float] = (),
) -> float:  # fmt: skip
    r"""A linear warm-up, then a schedule.

    With :math:`r` for ``peak``, ``"cosine"`` is :math:`\tfrac{1}{2} r (1 + \cos \pi t)`, with :math:`t` from 0 to 1 at
    ``steps``, the length of the run; ``"constant"`` is :math:`r`; ``"steps"`` is :math:`0.1^k r` after :math:`k`
    milestones. Step 0 has ``warmup_rate``. By default the warm-up starts one step after 0, so that its last step has
    the peak learning rate.

    Example:
        >>> [scheduled_rate(step, peak=0.5, steps=12, warmup_steps=6) for step in (0, 5, 9)]
        [0.08333333333333333, 0.5, 0.25]
    """
    if step < warmup_steps:
        if warmup_rate is None:
            return peak * (step + 1) / math.ceil(warmup_steps)
        return warmup_rate + (peak - warmup_rate) * step / warmup_steps
    if schedule == "constant":
        return peak
    if schedule == "steps":
        return peak * 0.1 ** sum(step >= milestone for milestone in milestones)
    return peak * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps))) / 2


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step of meta-training, where ``"steps"`` has no warm-up."""
    return scheduled_rate(
        step, schedule=config.schedule, peak=config.learning_rate, steps=config.epochs * steps_per_epoch,
        warmup_steps=config.warmup_epochs * steps_per_epoch if config.schedule == "cosine" else 0,
        warmup_rate=config.warmup_rate, milestones=[epoch * steps_per_epoch for epoch in config.milestones],
    )  # fmt: skip
