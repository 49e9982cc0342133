"""What all libraries share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Made = tuple[nn.Module, Any]
"""A network and its inputs."""

Networks = dict[str, Callable[[], Made]]


def image(side: int = 64, channels: int = 3, batch: int = 1) -> Tensor:
    return torch.rand(batch, channels, side, side)


def tokens(count: int = 12, size: int = 50, batch: int = 1) -> Tensor:
    """Token ids, none of which is a padding token 0."""
    return torch.randint(1, size, (batch, count))


def built(layer: Callable[..., nn.Module], values: dict[str, Any], **options: Any) -> nn.Module:
    """The layer with options, and with values for what else it requires."""
    asked = inspect.signature(layer).parameters.values()
    needed = {one.name: values[one.name] for one in asked if one.default is one.empty and one.name in values}
    return layer(**{**needed, **options})
