"""Building networks whose large parameters have a shape but no memory."""

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
_SIZE_LIMIT: Final = 1 << 20
_META: Final = {"device": "meta"}


def without_memory(build: Callable[[], _Built]) -> _Built:
    """What ``build`` makes, in :class:`EmptyOnMeta`; with memory where it looks at values that are not there.

    Example:
        >>> without_memory(lambda: torch.nn.Linear(3, 5)).weight.device
        device(type='meta')
        >>> without_memory(lambda: torch.empty(3).zero_().tolist())
        [0.0, 0.0, 0.0]
    """
    try:
        with EmptyOnMeta():
            return build()
    except (RuntimeError, TypeError, ValueError) as error:
        if "meta" not in str(error):
            raise
        _logger.info("built with memory: %s", error)
    return build()


class EmptyOnMeta(TorchFunctionMode):
    """Inside this context tensors that are made without values are on the meta device, and so are very large ones.

    ``with torch.device("meta")`` moves all, and constructors compute widths, positions and masks with tensors, whose
    values they or the forward pass look at.

    Example:
        >>> with EmptyOnMeta():
        ...     layer = torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 5)
        >>> layer[0].running_mean.device, layer[1].weight.device
        (device(type='cpu'), device(type='meta'))
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            return func(*args, **{**kwargs, "device": "meta"})
        if func in _FILLED:
            abstract = func(*args, **{name: value for name, value in kwargs.items() if name != "generator"} | _META)
            if math.prod(abstract.shape) > _SIZE_LIMIT:
                return abstract
        return func(*args, **kwargs)
