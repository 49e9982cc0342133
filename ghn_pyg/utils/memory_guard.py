"""A check of free memory before large allocations."""

from __future__ import annotations

from typing import Final

import psutil
import torch

_SMALL: Final = 1 << 26
"""Bytes that are not worth a check, which takes longer than searching a small graph."""


def check_memory(
    needed_bytes: int,
    what: str,
    instead: str = "use a machine with more memory",
    device: torch.device | str = "cpu",
) -> None:
    """Raises an error if more memory is needed than is free: Linux would end the process instead of refusing.

    Only the memory of the CPU is checked: on other devices PyTorch raises an error itself.

    Example:
        >>> check_memory(1 << 60, "the distance matrix of 1,073,741,824 nodes")
        Traceback (most recent call last):
        MemoryError: the distance matrix of 1,073,741,824 nodes needs 1,152,921,504.6 GB, ... GB are free; use a ...
    """
    if torch.compiler.is_compiling() or needed_bytes < _SMALL or torch.device(device).type != "cpu":
        return
    free = psutil.virtual_memory().available
    if needed_bytes > free:
        raise MemoryError(f"{what} needs {needed_bytes / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free; {instead}")
