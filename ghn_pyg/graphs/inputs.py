"""The inputs that a network is traced with when the user gives none."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

IMAGE_SIZE: Final = 224

SIZES_BY_CLASS: Final[dict[str, int]] = {"torchvision.models.inception.Inception3": 299}
"""Image sizes of networks that were made for one, but do not declare it."""


def default_inputs(model: nn.Module) -> tuple[Tensor]:
    """One image of the network's own input size, without data."""
    return (torch.empty(1, *image_shape(model), device="meta"),)


def image_shape(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width that ``model`` declares, else 3×224×224.

    Declarations are timm's ``default_cfg["input_size"]`` and the attribute ``image_size`` of vision transformers.
    """
    config: Any = getattr(model, "default_cfg", None)
    if isinstance(config, dict) and len(config.get("input_size", ())) == 3:
        channels, height, width = config["input_size"]
        return channels, height, width
    declared = getattr(model, "image_size", None)
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    side = declared if isinstance(declared, int) else SIZES_BY_CLASS.get(name, IMAGE_SIZE)
    return 3, side, side
