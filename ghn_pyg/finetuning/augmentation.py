"""Augmentation of training images, beside that of the image data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from ..data import Images
from .config import FitConfig


class AugmentedImages:
    """Training images with RandAugment and cutout; see :class:`~ghn_pyg.finetuning.FitConfig`."""

    def __init__(self, images: Images, config: FitConfig) -> None:
        self._images = images.train
        self._cutout = config.cutout
        self._randaugment = v2.RandAugment(magnitude=config.randaugment) if config.randaugment else None
        self._mean, self._std = (torch.tensor(colours).view(3, 1, 1) for colours in (images.mean, images.std))

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Normalised images and their labels, by their numbers; random with PyTorch's global generator."""
        inputs, labels = self._images.batch(numbers)
        if self._randaugment is not None:
            pixels = (inputs * self._std + self._mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
            augmented = torch.stack([self._randaugment(image) for image in pixels])
            inputs = (augmented / 255 - self._mean) / self._std
        return cutout(inputs, self._cutout) if self._cutout else inputs, labels


def cutout(images: Tensor, size: int) -> Tensor:
    """Sets a square of each image to 0, around a random pixel; near a border, less of it is inside (arXiv 1708.04552).

    Shapes:
        ``images`` and the result: (B, C, H, W).

    Example:
        >>> int((cutout(torch.ones(5, 3, 7, 7), 1) == 0).sum())
        15
    """
    offsets = (torch.arange(side) - torch.randint(side, (len(images), 1)) + size // 2 for side in images.shape[-2:])
    rows, columns = ((offset >= 0) & (offset < size) for offset in offsets)  # B × H, B × W
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def mixing(config: FitConfig, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Mixup or CutMix of a batch; None without them."""
    choices = ((v2.MixUp, config.mixup), (v2.CutMix, config.cutmix))
    used = [transform(alpha=alpha, num_classes=num_classes) for transform, alpha in choices if alpha]
    return v2.RandomChoice(used) if used else None
