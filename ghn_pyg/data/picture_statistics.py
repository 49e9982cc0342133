"""Sizes and colours of pictures, measured on some of them."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any, Final

import torch

from .augmentation import Normalization, picture_transforms
from .images import FileImages

_SAMPLE: Final = 500
_SMALLEST_STD: Final = 0.01  # for images of one colour


def median_size(images: FileImages) -> tuple[int, int]:
    """Median width and height in pixels, of up to 500 pictures."""
    sizes = [_picture(images, number).size for number in _sample(len(images))]
    width, height = (int(statistics.median(lengths)) for lengths in zip(*sizes, strict=True))
    return width, height


def colour_statistics(images: FileImages, size: int) -> Normalization:
    """Mean and standard deviation of each colour, of up to 500 pictures, for images of ``size`` pixels from 0 to 1."""
    transform, _ = picture_transforms(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pixels, _ = dataclasses.replace(images, transform=transform, augment=None).batch(_sample(len(images)))
    variance, mean = torch.var_mean(pixels, dim=(0, 2, 3))
    std = variance.sqrt().clamp(min=_SMALLEST_STD)
    (r, g, b), (red, green, blue) = ([round(value, 4) for value in colours.tolist()] for colours in (mean, std))
    return (r, g, b), (red, green, blue)


def _sample(count: int) -> list[int]:
    return list(range(0, count, -(-count // _SAMPLE)))


def _picture(images: FileImages, number: int) -> Any:
    return dataclasses.replace(images, transform=lambda picture: picture, augment=None)._read(number)[0]
