"""What all libraries share."""

from __future__ import annotations

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
