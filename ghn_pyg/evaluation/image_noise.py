"""Gaussian noise that is added to test images before evaluation, and its published strength."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ..data.images import Images

PUBLISHED_NOISE: Final = {"cifar10": 0.08, "cifar100": 0.08, "imagenet": 0.18}
"""Published standard deviations, for pixels from 0 to 1, by image data."""


def published_noise(images: Images) -> float:
    """The standard deviation of the noise in published evaluations on these images.

    Raises:
        ValueError: If none is published for them.

    Example:
        >>> from ghn_pyg.data import load_images
        >>> published_noise(load_images("digits"))
        Traceback (most recent call last):
        ValueError: no noise is published for digits, only for cifar10, cifar100, imagenet; give a number
    """
    if (name := images.name.lower()) not in PUBLISHED_NOISE:
        raise ValueError(f"no noise is published for {name}, only for {', '.join(PUBLISHED_NOISE)}; give a number")
    return PUBLISHED_NOISE[name]


def add_image_noise(images: Tensor, std: Tensor, seed: int) -> Tensor:
    """Adds Gaussian noise to images of shape (B, C, H, W), with a standard deviation for each channel."""
    if not std.any():
        return images
    return images + std.view(-1, 1, 1) * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
