"""Finds before the work that there is no memory for it."""

from __future__ import annotations

from typing import Final

import torch

from ..transforms import room

_SMALL: Final = 1 << 28
_INSTEAD: Final = (
    "use a machine with more memory, or an encoder whose attention is sparse, such as GHNConfig(encoder='exphormer')"
)


def check_room(needed: int, what: str, device: torch.device) -> None:
    """Compares what is needed with what is free, where the system would rather end the process than refuse.

    Args:
        needed: Bytes.
        what: What needs them.
        device: Where; on others than the CPU PyTorch itself refuses.

    Raises:
        MemoryError: If it is more; the message has both numbers.

    Example:
        >>> check_room(1 << 60, "the biases of all pairs", torch.device("cpu"))
        Traceback (most recent call last):
        MemoryError: the biases of all pairs need 1,152,921,504.6 GB while they are computed, and ... GB are free; ...
    """
    if needed >= _SMALL and device.type == "cpu":
        room.check_room(needed, what, _INSTEAD)
