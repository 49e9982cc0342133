"""What a trace assumes where a forward pass asks for values: conditions, choices, numbers that it reads or draws.

The graph of a network has all of its layers, so several assumptions are tried where a forward pass asks, and the trace
that reaches the most parameters counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pickle
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor

Site = tuple[str, str, int]
"""Where a value is asked for: module, file and line."""

# How a condition is answered when it is asked for the n-th time at a site. A loop that ends when its condition fails
# runs twice under "twice". One that breaks when its condition holds runs three times under "later", as it may end with
# what it computed the time before.
CONDITIONS: Final[dict[str, Callable[[int], bool]]] = {
    "always": lambda n: True,
    "twice": lambda n: n <= 2,
    "later": lambda n: n > 2,
    "never": lambda n: False,
}
# Integers and truth values of this shape that stand for those of activations; counting gives each row a permutation.
INTEGERS: Final[dict[str, Callable[[Sequence[int]], Tensor]]] = {
    "counted": lambda shape: torch.ones(shape, dtype=torch.long, device="cpu").cumsum(-1) - 1,
    "ones": lambda shape: torch.ones(shape, device="cpu"),
    "zeros": lambda shape: torch.zeros(shape, device="cpu"),
}
GENERATORS: Final = frozenset((random.Random, np.random.Generator, np.random.RandomState))
"""Types of generators that a network may have of its own."""
SEEDS: Final = range(4)
"""Sequences of random numbers that are tried."""
_ONE_AT_A_TIME: Final = threading.RLock()
_WORDS: Final = 624  # of the state of a Mersenne Twister, which Python and NumPy draw from


@dataclasses.dataclass(frozen=True, slots=True)
class Assumptions:
    """The answers that a trace gives."""

    conditions: str = "always"
    flipped: frozenset[Site] = frozenset()  # sites with the opposite answers
    all_chosen: bool = True  # whether choices that depend on activations take all elements, or none
    fixed: bool = False  # whether generators draw the same numbers in each trace
    integers: str | None = None  # what stands for integers that are read; by default reading activations is an error
    drawn: float = 0.5  # random numbers from 0 to 1; 1.0 stands for the largest below
    seed: int | None = None  # of numbers that differ, instead of that one

    @property
    def number(self) -> float | None:
        """The one that is drawn again and again, if there is one."""
        return self.drawn if self.seed is None else None


class Trace(Protocol):
    """What notes whether random numbers were drawn."""

    assumed: Assumptions
    drew: bool
    drew_from_state: bool
    generators: list[tuple[Any, bytes]]


@contextlib.contextmanager
def drawing(trace: Trace) -> Iterator[None]:
    """Restores the random generators, and notes whether any was used.

    Under ``fixed`` assumptions Python and NumPy draw one number again and again, and PyTorch the same numbers in each
    trace. A loop may wait for another number, so after 312 of them they are pseudorandom. Other threads draw from the
    same generators, so they are fixed only for networks that draw, and for one trace at a time.
    """
    with _ONE_AT_A_TIME:
        yield from _drawing(trace)


def _drawing(trace: Trace) -> Iterator[None]:
    before = _state()
    if trace.assumed.fixed:
        words = _words(trace.assumed)
        random.setstate((3, (*words, 0), None))
        np.random.set_state(("MT19937", np.array(words, np.uint32), 0, 0, 0.0))  # noqa: NPY002
        torch.default_generator.manual_seed(trace.assumed.seed or 0)
    start = _state() if trace.assumed.fixed else before
    try:
        yield
    finally:
        end = _state()
        unused = start[0] == end[0] and start[1][2] == end[1][2] and torch.equal(start[2], end[2])
        trace.drew_from_state = not unused or any(pickle.dumps(own) != start for own, start in trace.generators)
        trace.drew |= trace.drew_from_state
        if trace.drew_from_state or trace.assumed.fixed:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            torch.default_generator.set_state(before[2])


def _state() -> tuple[Any, Any, Tensor]:
    """The states of the generators of Python, NumPy and PyTorch."""
    return random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002


def own_generator(trace: Trace, generator: Any) -> Any:
    """A copy of a network's own generator, which under ``fixed`` assumptions draws one number again and again, too."""
    copied = deepcopy(generator)
    if trace.assumed.fixed:
        words = _words(trace.assumed)
        if isinstance(generator, random.Random):
            copied = random.Random()
            copied.setstate((3, (*words, 0), None))
        else:
            bits = np.random.MT19937()
            bits.state = {"bit_generator": "MT19937", "state": {"key": np.array(words, np.uint32), "pos": 0}}
            copied = type(generator)(bits)
    trace.generators.append((copied, pickle.dumps(copied)))
    return copied


def _words(assumed: Assumptions) -> list[int]:
    """The state of a Mersenne Twister that draws the assumed number again and again.

    A number is made of the upper bits of two words. The lower bits differ, so that the state is not stuck.
    """
    if assumed.seed is not None:
        return list(random.Random(assumed.seed).getstate()[1][:-1])
    first = min(int(assumed.drawn * 2**32), 2**32 - 32)
    return [_untempered((0 if count % 2 else first) + count % 32) for count in range(_WORDS)]


@functools.cache
def _untempered(word: int) -> int:
    """The word of the state of a Mersenne Twister that comes out as ``word``."""
    word ^= word >> 18
    word ^= (word << 15) & 0xEFC60000
    shifted = word
    for _ in range(4):
        shifted = word ^ ((shifted << 7) & 0x9D2C5680)
    word = shifted
    for _ in range(2):
        shifted = word ^ (shifted >> 11)
    return shifted
