"""Image data: normalised training and test images with labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .augmentation import IMAGENET, Colours, picture_transforms


class ImagesError(ValueError):
    """Image data cannot be found or read."""


@dataclasses.dataclass(frozen=True)
class TensorImages:
    """Images in memory.

    Args:
        pixels: Of type uint8 and shape (N, 3, H, W).
        labels: Of shape (N,).
        mean: See :class:`Images`.
        std: See :class:`Images`.
        augment: Augments the pixels of a batch, with PyTorch's global generator.
    """

    pixels: Tensor
    labels: Tensor
    mean: Colours
    std: Colours
    augment: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Normalised images of shape (B, 3, H, W) and labels of shape (B,), by the numbers of the images."""
        rows = torch.as_tensor(numbers)
        pixels = self.pixels[rows] if self.augment is None else self.augment(self.pixels[rows])
        mean, std = (torch.tensor(colours).view(3, 1, 1) for colours in (self.mean, self.std))
        return (pixels / 255 - mean) / std, self.labels[rows]

    def plain(self) -> TensorImages:
        """The same images without augmentation."""
        return dataclasses.replace(self, augment=None)


@dataclasses.dataclass(frozen=True)
class FileImages:
    """Images in files.

    Args:
        dataset: Has (picture, label) by number.
        num_classes: Number of classes.
        transform: Makes a normalised tensor of shape (3, H, W) from a picture.
        augment: The same with augmentation.
    """

    dataset: Any
    num_classes: int
    transform: Callable[[Any], Tensor]
    augment: Callable[[Any], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Normalised images of shape (B, 3, H, W) and labels of shape (B,), by the numbers of the images."""
        pictures, labels = zip(*(self.dataset[int(number)] for number in numbers), strict=True)
        classes = torch.tensor([int(label) for label in labels])
        if not 0 <= classes.min() <= classes.max() < self.num_classes:
            raise ImagesError(
                f"expected labels from 0 to {self.num_classes - 1}, got {classes.min()} to {classes.max()}; give the "
                "number of classes (num_classes, --num-classes)"
            )
        return torch.stack([(self.augment or self.transform)(picture) for picture in pictures]), classes

    def plain(self) -> FileImages:
        """The same images without augmentation."""
        return dataclasses.replace(self, augment=None)


ImageSet = TensorImages | FileImages


@dataclasses.dataclass(frozen=True)
class Images:
    """Training and test images; the test images are not augmented.

    Args:
        name: Name of the data.
        train: Training images.
        test: Test images.
        num_classes: Number of classes.
        image_size: Height and width in pixels.
        mean: Mean of each colour, subtracted from pixels from 0 to 1.
        std: Standard deviation of each colour, by which they are then divided.
    """

    name: str
    train: ImageSet
    test: ImageSet
    num_classes: int
    image_size: int
    mean: Colours
    std: Colours

    @classmethod
    def from_datasets(cls, name: str, train: Any, test: Any, num_classes: int, size: int, augment: bool) -> Images:
        """Image data from two data sets that have (picture, label) by number."""
        transform, augmented = picture_transforms(size)
        train_images = FileImages(train, num_classes, transform, augmented if augment else None)
        return cls(name, train_images, FileImages(test, num_classes, transform), num_classes, size, *IMAGENET)

    def check_classes(self, what: str, classes: int, advice: str = "") -> None:
        """Raises a ValueError if ``what`` is for another number of classes."""
        if classes != self.num_classes:
            raise ValueError(
                f"{what} is for {classes} classes and {self.name} has {self.num_classes}, so that accuracy would be "
                f"that of chance{advice and '; ' + advice}"
            )
