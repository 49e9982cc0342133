"""Finds before the work that there is no memory for it."""

from __future__ import annotations

from typing import Final

import psutil
import torch

_SMALL: Final = 1 << 28


def check_room(needed: int, pairs: int, device: torch.device) -> None:
    """Compares what biases need with what is free, where the system would rather end the process than refuse.

    Args:
        needed: Bytes.
        pairs: How many pairs of nodes have biases.
        device: Where; on others than the CPU PyTorch itself refuses, and a compiler knows no numbers.

    Raises:
        MemoryError: If it is more; the message has both numbers.

    Example:
        >>> check_room(1 << 60, 1 << 40, torch.device("cpu"))
        Traceback (most recent call last):
        MemoryError: the biases of 1,099,511,627,776 pairs of nodes need 1,152,921,504.6 GB, and ... GB are free; ...
    """
    if torch.compiler.is_compiling() or needed < _SMALL or device.type != "cpu":
        return
    if needed > (free := psutil.virtual_memory().available):
        raise MemoryError(
            f"the biases of {pairs:,} pairs of nodes need {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free; "
            "use a machine with more memory, or an encoder whose attention is sparse, such as "
            "GHNConfig(encoder='exphormer')"
        )
