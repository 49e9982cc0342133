"""What a run costs, measured on a few of its steps before it starts."""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import torch

from ..data import Images
from ..families.deepnets.rank_sharding import training_cost
from .config import TrainConfig
from .distributed import all_gather
from .run import Run
from .seeds import preserve_rng

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_ESTIMATED: Final = 100


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run costs.

    Args:
        steps: Steps of the whole run.
        seconds: Mean duration of a step.
        memory: Bytes of memory in use after the measured steps, in all processes together; on a GPU the largest use of
            its memory by one process.
    """

    steps: int
    seconds: float
    memory: int

    @property
    def minutes(self) -> float:
        """Duration of the whole run."""
        return self.steps * self.seconds / 60


def measure_cost(config: TrainConfig, images: Images, fabric: Fabric, steps: int = 10) -> Cost:
    """Takes steps of a run, spread over its whole length, and throws their results away.

    Steps differ several times in their networks. The time of the measured ones is therefore extrapolated to the whole
    run by the networks' multiply-adds. All ranks call it at the same time and get the same result.
    """
    with preserve_rng(fabric.device), tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(folder), fabric, images)
        seconds = [_timed_step(run, step) for step in [0, *_spread(run.length, steps)]][1:]  # the first one warms up
    multiply_adds = [
        statistics.fmean(_multiply_adds(run, step) for step in _spread(run.length, count))
        for count in (steps, _ESTIMATED)
    ]  # of measured and of all steps
    if fabric.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(fabric.device)
    else:
        memory = psutil.Process(os.getpid()).memory_info().rss
    # Ranks have networks of their own, and must agree on a length.
    mean = statistics.fmean(seconds) * multiply_adds[1] / multiply_adds[0]
    figures = torch.tensor([mean, float(memory)], device=fabric.device)
    times, memories = all_gather(fabric, figures.unsqueeze(0)).T.tolist()
    total = max(memories) if fabric.device.type == "cuda" else sum(memories)
    return Cost(run.length, max(times), int(total))


def _spread(length: int, count: int) -> list[int]:
    """Steps at equal distances over a run."""
    return [length * (2 * number + 1) // (2 * count) for number in range(count)]


def _timed_step(run: Run, step: int) -> float:
    run.state.progress.step = step
    start_time = time.perf_counter()
    batches = run.architectures_from(step).meta_batch(step), run.images_from(step).batch(step)
    return run.step(*batches, start_time).seconds


def _multiply_adds(run: Run, step: int) -> int:
    architectures = run.architectures_from(step).architectures(step)
    size, device = run.images.image_size, run.fabric.device.type
    return sum(training_cost(architecture, size, device) for architecture in architectures)
