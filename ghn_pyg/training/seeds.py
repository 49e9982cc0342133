"""Random numbers as a function of where they are used, so that no generator has a state to keep."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """A seed that is a function of some numbers, the same on every machine.

    Example:
        >>> seed_of(3, 5) == seed_of(3, 5) != seed_of(5, 3)
        True
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextlib.contextmanager
def restored(device: torch.device) -> Iterator[None]:
    """After this context PyTorch's generators, on the CPU and on ``device``, go on as if nothing had been drawn.

    Example:
        >>> state = torch.get_rng_state()
        >>> with restored(torch.device("cpu")):
        ...     reseed(torch.device("cpu"), 5)
        >>> torch.equal(torch.get_rng_state(), state)
        True
    """
    before = torch.mps.get_rng_state() if device.type == "mps" else None  # which fork_rng does not know
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        if before is not None:
            torch.mps.set_rng_state(before)


def reseed(device: torch.device, *numbers: int) -> None:
    """Seeds PyTorch's generators, on the CPU and on ``device`` alone, with a function of some numbers."""
    seed = seed_of(*numbers)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
