"""What a trace assumes where a forward pass asks for values: conditions, choices of elements and random numbers.

The graph of a network has all of its layers, so several assumptions are tried where a forward pass asks, and the trace
that reaches the most parameters counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

Site = tuple[str, str, int]
"""Where a value is asked for: module, file and line."""

# How a condition is answered when it is asked for the n-th time at a site. A loop that ends when its condition fails
# runs twice under "twice", and one that breaks when its condition holds runs twice under "later".
CONDITIONS: Final[dict[str, Callable[[int], bool]]] = {
    "always": lambda n: True,
    "twice": lambda n: n <= 2,
    "later": lambda n: n > 1,
    "never": lambda n: False,
}
GENERATORS_LOCK: Final = threading.RLock()
"""Held while the generators of the program may be set: by one trace at a time."""
_SEEDS: Final = frozenset(("random", "manual_seed", "set_rng_state"))
_WORDS: Final = 624  # of the state of a Mersenne Twister, which Python and NumPy draw from


@dataclasses.dataclass(frozen=True, slots=True)
class Assumptions:
    """The answers that a trace gives."""

    conditions: str = "always"
    flipped: frozenset[Site] = frozenset()  # sites with the opposite answers
    all_chosen: bool = True  # whether choices that depend on activations take all elements, or none
    fixed: bool = False  # whether generators draw the same numbers in each trace
    drawn: float = 0.5  # random numbers from 0 to 1; 1.0 stands for the largest below


class Generators(NamedTuple):
    """States of the generators of Python, NumPy and PyTorch that a program shares."""

    python: Any
    numpy: Any
    torch: Tensor

    @classmethod
    def now(cls) -> Generators:
        """The present states."""
        return cls(random.getstate(), np.random.get_state(), torch.default_generator.get_state())  # noqa: NPY002

    def unused(self) -> bool:
        """Whether nothing was drawn since."""
        now = Generators.now()
        return self.python == now.python and self.numpy[2] == now.numpy[2] and torch.equal(self.torch, now.torch)

    def restore(self) -> None:
        """Sets the generators back to these states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.default_generator.set_state(self.torch)


def fix_generators(number: float) -> None:
    """Lets Python and NumPy draw one number again and again, and PyTorch the same numbers each time.

    A loop may wait for another number, so after 312 of them they are pseudorandom.
    """
    # A number is made of the upper bits of two words. The lower bits differ, so that the state is not stuck.
    first = min(int(number * 2**32), 2**32 - 32)
    words = [_untempered((0 if count % 2 else first) + count % 32) for count in range(_WORDS)]
    random.setstate((3, (*words, 0), None))
    np.random.set_state(("MT19937", np.array(words, np.uint32), 0, 0, 0.0))  # noqa: NPY002
    torch.default_generator.manual_seed(0)


@contextlib.contextmanager
def fixed_generators() -> Iterator[None]:
    """Within this context the generators draw what they draw in a trace."""
    with GENERATORS_LOCK:
        before = Generators.now()
        fix_generators(Assumptions().drawn)
        try:
            yield
        finally:
            before.restore()


def uses_generators(run: Callable[[], Any], ignored: tuple[str, ...]) -> bool:
    """Whether functions that run in this thread, but for those of ignored folders, name a generator.

    Other threads draw from the same generators, so states that have changed do not show who has changed them.
    """
    if sys.getprofile() is not None:  # a profiler watches already
        return True
    owners, modules = (random.random.__self__, np.random.rand.__self__), (random, np.random)  # type: ignore[attr-defined]
    named = False

    def watch(frame: types.FrameType, event: str, _: Any) -> None:
        nonlocal named
        code = frame.f_code
        if event == "call" and not named and not code.co_filename.startswith(ignored):
            values = [frame.f_globals.get(name) for name in code.co_names]
            named = not _SEEDS.isdisjoint(code.co_names) or any(
                any(value is module for module in modules)
                or any(getattr(value, "__self__", 0) is own for own in owners)
                for value in values
            )

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    return named


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
