"""Augmentation and normalisation of images."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

Colours = tuple[float, float, float]
Normalization = tuple[Colours, Colours]

IMAGENET: Final[Normalization] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the colours of ImageNet."""

_SMALL: Final = 64


def shift_and_mirror(pixels: Tensor) -> Tensor:
    """Shifts each image at random by up to an eighth of its size, with black borders, and mirrors half of the images.

    Shapes:
        ``pixels`` and the result: (B, C, H, W).
    """
    count, _, height, width = pixels.shape
    reach = width // 8
    padded = F.pad(pixels, [reach] * 4)
    rows, columns = (
        torch.randint(2 * reach + 1, (count, 1)) + torch.arange(length) for length in (height, width)
    )  # B × H, B × W
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    image = torch.arange(count).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


def picture_transforms(size: int, mean: Colours, std: Colours) -> tuple[Any, Any]:
    """From a picture to a normalised tensor, without and with augmentation.

    Pictures of up to 64 pixels are shifted and mirrored; larger ones are cropped and mirrored as for ImageNet.
    """
    finish = [v2.PILToTensor(), v2.RGB(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    if size <= _SMALL:
        plain: list[Any] = [v2.Resize((size, size))]
        augmented: list[Any] = [*plain, v2.RandomCrop(size, padding=size // 8), v2.RandomHorizontalFlip()]
    else:
        plain = [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)]
        augmented = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
    return v2.Compose(plain + finish), v2.Compose(augmented + finish)
