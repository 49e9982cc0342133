"""Finds before the work that there is no memory for it."""

from __future__ import annotations

from typing import Final

import psutil

_SMALL: Final = 1 << 16


def check_room(needed: int, what: str, instead: str = "use a machine with more memory") -> None:
    """Compares what is needed with what is free, where the system would rather end the process than refuse.

    Args:
        needed: Bytes.
        what: What needs them.
        instead: What to do.

    Raises:
        MemoryError: If it is more; the message has both numbers.
    """
    if needed < _SMALL:  # asking for the free memory takes longer than searching a molecule
        return
    if needed > (free := psutil.virtual_memory().available):
        raise MemoryError(
            f"{what} need {needed / 1e9:,.1f} GB while they are computed, and {free / 1e9:,.1f} GB are free; {instead}"
        )
