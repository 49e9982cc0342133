"""Processes that work in one folder divide the work among them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from filelock import Timeout

Item = TypeVar("Item")
Result = TypeVar("Result")


def divide(items: Sequence[Item], work: Callable[[Item, float], Result]) -> list[Result]:
    """Does first what no other process is at; then waits for the others, and does what they left undone.

    Args:
        items: What there is to do.
        work: Does one of them and returns its result, or that of another process. It holds a lock meanwhile, and
            raises :class:`filelock.Timeout` where it did not get it in so many seconds, -1 for as long as it takes.

    Returns:
        The results, in the order of the items.

    Example:
        >>> divide([2, 3, 5], lambda number, patience: number**2)
        [4, 9, 25]
    """
    found: dict[int, Result] = {}
    for patience in (0, -1):
        for place, item in enumerate(items):
            if place not in found:
                with contextlib.suppress(Timeout):
                    found[place] = work(item, patience)
    return [found[place] for place in range(len(items))]
