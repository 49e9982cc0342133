"""Learning rates of meta-training and fine-tuning.

They are functions of the step, which a resumed or rolled back run just goes on with. Schedulers of PyTorch have a state
to save: their learning rate is a product over all earlier steps.
"""

from __future__ import annotations

import math

from .config import TrainConfig


def warmup_cosine(
    step: int, *, peak: float, steps: int, warmup_steps: float = 0, warmup_rate: float | None = None
) -> float:
    r"""A linear warm-up, then a cosine to 0: :math:`\tfrac{1}{2} r (1 + \cos \pi t)`, with :math:`t` from 0 to 1.

    Here :math:`r` is ``peak``, and ``steps`` the length of the run, where the learning rate would be 0. Step 0 has
    ``warmup_rate``. By default the warm-up starts one step after 0, so that its last step has the peak learning rate.

    Example:
        >>> [warmup_cosine(step, peak=0.5, steps=12, warmup_steps=6) for step in (0, 5, 9)]
        [0.08333333333333333, 0.5, 0.25]
    """
    if step < warmup_steps:
        if warmup_rate is None:
            return peak * (step + 1) / math.ceil(warmup_steps)
        return warmup_rate + (peak - warmup_rate) * step / warmup_steps
    return peak * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps))) / 2


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    r"""The learning rate of a step of meta-training; for ``"steps"`` :math:`0.1^k r` after :math:`k` milestones."""
    if config.schedule == "steps":
        return config.learning_rate * 0.1 ** sum(step >= epoch * steps_per_epoch for epoch in config.milestones)
    return warmup_cosine(
        step, peak=config.learning_rate, steps=config.epochs * steps_per_epoch,
        warmup_steps=config.warmup_epochs * steps_per_epoch, warmup_rate=config.warmup_rate,
    )  # fmt: skip
