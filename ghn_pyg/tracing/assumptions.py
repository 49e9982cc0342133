"""What a trace assumes where a forward pass asks for values: conditions, choices, numbers that it reads or draws.

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
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Final, NamedTuple

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
OWN_GENERATORS: Final = frozenset((random.Random, np.random.Generator, np.random.RandomState))
"""Types of generators that a network may have of its own."""
SEEDS: Final = range(4)
"""Sequences of random numbers that are tried."""
GENERATORS_LOCK: Final = threading.RLock()
"""Held while the generators of the program may be set: by one trace at a time."""
_SETTERS: Final = frozenset(("random", "manual_seed", "set_rng_state"))
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


def fix_generators(assumed: Assumptions) -> None:
    """Lets Python and NumPy draw the assumed number again and again, and PyTorch the same numbers each time.

    A loop may wait for another number, so after 312 of them they are pseudorandom.
    """
    words = _words(assumed)
    random.setstate((3, (*words, 0), None))
    np.random.set_state(("MT19937", np.array(words, np.uint32), 0, 0, 0.0))  # noqa: NPY002
    torch.default_generator.manual_seed(assumed.seed or 0)


@contextlib.contextmanager
def fixed_generators(assumed: Assumptions) -> Iterator[Generators]:
    """Within this context the generators draw what they draw in a trace; it gives their first states."""
    with GENERATORS_LOCK:
        before = Generators.now()
        fix_generators(assumed)
        try:
            yield Generators.now()
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
            named = not _SETTERS.isdisjoint(code.co_names) or any(
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


def own_generator(assumed: Assumptions, generator: Any) -> Any:
    """A copy of a network's own generator, which under ``fixed`` assumptions draws one number again and again, too."""
    if not assumed.fixed:
        return deepcopy(generator)
    words = _words(assumed)
    if isinstance(generator, random.Random):
        copied = random.Random()
        copied.setstate((3, (*words, 0), None))
        return copied
    bits = np.random.MT19937()
    bits.state = {"bit_generator": "MT19937", "state": {"key": np.array(words, np.uint32), "pos": 0}}
    return type(generator)(bits)


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
