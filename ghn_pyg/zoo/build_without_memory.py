"""Builds networks of any size without memory for their large parameters."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import torch
from torch.overrides import TorchFunctionMode

_logger = logging.getLogger(__name__)
_Built = TypeVar("_Built")

_FILLED: Final = frozenset((torch.zeros, torch.ones, torch.full, torch.rand, torch.randn))
_MAX_FILLED_ELEMENTS: Final = 1 << 20
_INITIALISE: Final = frozenset(("normal_", "uniform_", "trunc_normal_", "zeros_", "ones_", "zero_", "fill_"))
"""Without memory these do nothing, and take most of the time in which a network is built."""


def without_memory(build: Callable[[], _Built]) -> _Built:
    """Calls ``build`` with uninitialised and very large tensors on the meta device.

    Parameters then have a shape, but no memory. Small tensors keep their values, because constructors compute widths,
    positions and masks with tensors; ``with torch.device("meta")`` would move these as well. If the constructor reads
    a value that is missing, ``build`` is called again, with memory.

    Example:
        >>> layer = without_memory(lambda: torch.nn.BatchNorm1d(3)), without_memory(lambda: torch.nn.Linear(3, 5))
        >>> layer[0].running_mean.device, layer[1].weight.device
        (device(type='cpu'), device(type='meta'))
        >>> without_memory(lambda: torch.empty(3).zero_().tolist())
        [0.0, 0.0, 0.0]
    """
    try:
        with _EmptyOnMeta():
            return build()
    except (RuntimeError, TypeError, ValueError) as error:
        if "meta" not in str(error):
            raise
        _logger.info("built with memory: %s", error)
    return build()


class _EmptyOnMeta(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and getattr(func, "__name__", "") in _INITIALISE and getattr(args[0], "is_meta", False):
            return args[0]
        if func is torch.empty:
            return func(*args, **{**kwargs, "device": "meta"})
        if func in _FILLED:
            # A generator of another device would be refused.
            on_meta = {name: value for name, value in kwargs.items() if name != "generator"} | {"device": "meta"}
            tensor = func(*args, **on_meta)
            if math.prod(tensor.shape) > _MAX_FILLED_ELEMENTS:
                return tensor
        return func(*args, **kwargs)
