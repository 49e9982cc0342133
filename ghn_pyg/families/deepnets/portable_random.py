"""Random numbers that are the same on every machine and with every version of NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class PortableRandom:
    """A stream of random numbers from PCG64.

    NumPy guarantees PCG64's raw stream and its seeding, but not what its ``Generator`` makes of them.

    Args:
        seed: The seed, at least 0.
        stream: Numbers that select one of the independent streams of this seed.

    Example:
        >>> random = PortableRandom(3, 5, 7)
        >>> [random.randbelow(1000) for _ in range(3)]
        [631, 151, 929]
    """

    def __init__(self, seed: int, *stream: int) -> None:
        self._raw = _raw_numbers(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=stream)))

    def randbelow(self, limit: int) -> int:
        """An integer from 0 to ``limit`` - 1."""
        return next(self._raw) * limit >> 64

    def randint(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``, both included."""
        return low + self.randbelow(high - low + 1)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.randbelow(len(items))]

    def bernoulli(self, probability: float) -> bool:
        """``True`` with this probability."""
        return next(self._raw) < probability * 2**64


def _raw_numbers(generator: np.random.PCG64) -> Iterator[int]:
    while True:
        yield from generator.random_raw(64).tolist()
