"""A check of free memory before large allocations, and what to do if it does not suffice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import psutil
import torch
from torch.overrides import TorchFunctionMode

_Result = TypeVar("_Result")
_MESSAGES: Final = ("can't allocate memory", "out of memory", "bad_alloc")
"""In RuntimeErrors of allocators: of the CPU, of other devices, and of C++."""

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


class CheckedLayers(TorchFunctionMode):
    """Within this context the memory of each new parameter is checked before it is allocated.

    Example:
        >>> with CheckedLayers():
        ...     torch.nn.Linear(1 << 24, 1 << 24)
        Traceback (most recent call last):
        MemoryError: a tensor of shape (16777216, 16777216) needs 1,125,899.9 GB, ... GB are free; use a machine ...
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            tensor = func(*args, **{**kwargs, "device": "meta"})
            device = kwargs.get("device") or torch.get_default_device()
            check_memory(tensor.nbytes, f"a tensor of shape {tuple(tensor.shape)}", device=device)
        return func(*args, **kwargs)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def if_memory_suffices(compute: Callable[[], _Result]) -> _Result | None:
    """The result of a function, or None if memory does not suffice; what it allocated is free again then.

    Example:
        >>> def fail():
        ...     raise torch.OutOfMemoryError("CUDA out of memory")
        >>> if_memory_suffices(fail) is None
        True
    """
    try:
        return compute()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Here the error is gone, and with it its frames, which hold tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
