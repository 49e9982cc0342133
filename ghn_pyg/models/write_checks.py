"""Checks, before anything is written into a user's network, that all of it can be written."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

_LISTED: Final = 5
_MAPPINGS: Final = Path("/proc/self/maps")


def check_writable(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raises an error if one of the tensors of a network cannot take new values.

    Args:
        network: The network.
        tensors: Its tensors that are to be written, by name.

    Raises:
        ValueError: If there is one; the message names them, with the reasons, and says what to do.

    Example:
        >>> layer = nn.Linear(3, 5)
        >>> layer.weight = nn.Parameter(torch.zeros(1, 3).expand(5, 3))
        >>> check_writable(layer, dict(layer.named_parameters()))
        Traceback (most recent call last):
        ...
        ValueError: nothing is written, because parts of Linear cannot be: weight (several of its elements share ...
    """
    read_only = list(_read_only_memory())
    faults = [f"{name} ({fault})" for name, tensor in tensors.items() if (fault := _fault(tensor, read_only))]
    if faults:
        more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise ValueError(
            f"nothing is written, because parts of {type(network).__name__} cannot be: {', '.join(faults[:_LISTED])}"
            f"{more}; give them memory of their own, as in model.weight = torch.nn.Parameter(model.weight.detach()"
            ".clone()), or use predict() and torch.func.functional_call"
        )


def _fault(tensor: Tensor, read_only: list[range]) -> str:
    """Why a tensor cannot take new values; empty if it can."""
    if type(tensor) not in (Tensor, nn.Parameter):
        if not _takes_values(tensor):
            return f"a {type(tensor).__name__} does not take new values"
    elif tensor.layout is torch.strided and tensor.device.type == "cpu":
        address = tensor.data_ptr()
        if tensor.numel() and not address:
            return "its memory is freed"
        at = bisect.bisect(read_only, address, key=lambda memory: memory.start)
        if at and address in read_only[at - 1]:
            return "its memory is read-only"
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return "it is sparse or quantised"
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return "it was made in inference mode"
    return "several of its elements share memory, as after expand()" if _overlaps(tensor) else ""


def _overlaps(tensor: Tensor) -> bool:
    reach = 0  # of the dimensions with smaller strides
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1):
        if stride <= reach:
            return tensor.numel() > 0
        reach += stride * (size - 1)
    return False


@torch.no_grad()
def _takes_values(tensor: Tensor) -> bool:
    """Whether a tensor of another class, such as a quantised one, can be written through a view; tried on a copy."""
    try:
        copy = tensor.detach().clone()
        ones = torch.ones(copy.shape, dtype=copy.dtype, device=copy.device)
        copy.unsqueeze(0)[0].copy_(ones)
        return bool((copy == ones).all())
    except Exception:  # noqa: BLE001  # the class decides what it raises
        return False


def _read_only_memory() -> Iterator[range]:
    """Addresses that cannot be written to, such as those of files mapped for reading, ascending; empty but on Linux."""
    if _MAPPINGS.exists():
        for line in _MAPPINGS.read_text("utf-8", "replace").splitlines():
            addresses, permissions = line.split(maxsplit=2)[:2]
            if "w" not in permissions:
                start, stop = (int(address, 16) for address in addresses.split("-"))
                yield range(start, stop)
