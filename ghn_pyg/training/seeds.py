"""Random numbers as functions of a seed, the step and the rank, so that no generator state has to be saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """A seed that depends on all numbers, and is the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextlib.contextmanager
def preserve_rng(device: torch.device) -> Iterator[None]:
    """Restores PyTorch's generators of the CPU and of ``device`` at the end of the context."""
    before = torch.mps.get_rng_state() if device.type == "mps" else None  # fork_rng does not support MPS
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        if before is not None:
            torch.mps.set_rng_state(before)


def seed_rng(device: torch.device, *numbers: int) -> None:
    """Seeds PyTorch's generators of the CPU and of ``device``, and no others, with :func:`seed_of` the numbers."""
    seed = seed_of(*numbers)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
