"""Image data: normalised training and test images with labels."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from ..models.trained_for import TrainedFor
from ..utils.warn_once import warn_once
from .augmentation import IMAGENET, Colours, Normalization, picture_transforms

_logger = logging.getLogger(__name__)


class ImagesError(ValueError):
    """Image data cannot be found or read."""


@dataclasses.dataclass(frozen=True)
class TensorImages:
    """Images in memory.

    Args:
        pixels: Of type uint8 and shape (N, 3, H, W), or (N, 1, H, W) for grey images, which get three equal colours.
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

    def __post_init__(self) -> None:
        if self.pixels.dim() != 4 or self.pixels.size(1) not in (1, 3):
            raise ImagesError(
                "expected pixels of shape (N, 3, H, W), or (N, 1, H, W) for grey images, got "
                f"{tuple(self.pixels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Normalised images of shape (B, 3, H, W) and labels of shape (B,), by the numbers of the images."""
        rows = torch.as_tensor(numbers)
        pixels = self.pixels[rows] if self.augment is None else self.augment(self.pixels[rows])
        mean, std = (torch.tensor(colours).view(-1, 1, 1) for colours in (self.mean, self.std))
        return (pixels.expand(-1, 3, -1, -1) / 255 - mean) / std, self.labels[rows]

    def all_labels(self) -> Tensor:
        """The labels of all images, of shape (N,)."""
        return self.labels

    def take(self, numbers: Sequence[int]) -> TensorImages:
        """Some of the images, by their numbers."""
        rows = torch.tensor(numbers, dtype=torch.long)
        return dataclasses.replace(self, pixels=self.pixels[rows], labels=self.labels[rows])

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
        tensors, labels = zip(*(self._read(int(number)) for number in numbers), strict=True)
        classes = torch.tensor(labels)
        if not 0 <= classes.min() <= classes.max() < self.num_classes:
            raise ImagesError(
                f"expected labels from 0 to {self.num_classes - 1}, got {classes.min()} to {classes.max()}; give the "
                "number of classes (num_classes, --num-classes)"
            )
        return torch.stack(tensors), classes

    def _read(self, number: int) -> tuple[Tensor, int]:
        try:
            picture, label = self.dataset[number]
            return (self.augment or self.transform)(picture), int(label)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors for damaged files
            dataset = self.dataset
            while isinstance(dataset, Subset):
                number, dataset = dataset.indices[number], dataset.dataset
            samples = getattr(dataset, "samples", None)
            name = samples[number][0] if samples else f"image {number} of {type(dataset).__name__}"
            raise ImagesError(
                f"cannot read {name}: {error}; repair or remove it, or skip damaged images (skip_damaged, "
                "--skip-damaged, for train -s skip_damaged=true)"
            ) from error

    def readable(self) -> FileImages:
        """The images that can be read. All are read once; damaged ones are logged and left out."""
        numbers = []
        for number in range(len(self)):
            try:
                self.plain()._read(number)
            except ImagesError as error:
                _logger.warning("skipped a damaged image: %s", str(error).partition("; repair")[0])
            else:
                numbers.append(number)
        if len(numbers) == len(self):
            return self
        _logger.warning("skipped %d of %d images, which are damaged", len(self) - len(numbers), len(self))
        return self.take(numbers)

    def all_labels(self) -> Tensor:
        """The labels of all images, of shape (N,); images are read where their data set does not list its labels."""
        numbers, dataset = list(range(len(self))), self.dataset
        while isinstance(dataset, Subset):
            numbers, dataset = [dataset.indices[number] for number in numbers], dataset.dataset
        listed = getattr(dataset, "targets", None)
        if listed is not None and len(listed) == len(dataset):
            return torch.tensor([int(listed[number]) for number in numbers])
        return torch.tensor([self.plain()._read(number)[1] for number in range(len(self))])

    def take(self, numbers: Sequence[int]) -> FileImages:
        """Some of the images, by their numbers."""
        return dataclasses.replace(self, dataset=Subset(self.dataset, numbers))

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
        classes: Names of the classes in the order of their labels; empty if they have none.
        source: Name or folder that :func:`load_images` takes.
    """

    name: str
    train: ImageSet
    test: ImageSet
    num_classes: int
    image_size: int
    mean: Colours
    std: Colours
    classes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(colours := getattr(self, name)) == 1:  # grey
                object.__setattr__(self, name, colours * 3)

    @classmethod
    def from_datasets(
        cls, name: str, train: Any, test: Any, num_classes: int, size: int, augment: bool,
        normalization: Normalization | None = None,
    ) -> Images:  # fmt: skip
        """Image data from two data sets that have (picture, label) by number; normalised as ImageNet by default."""
        mean, std = normalization or IMAGENET
        transform, augmented = picture_transforms(size, mean, std)
        train_images = FileImages(train, num_classes, transform, augmented if augment else None)
        test_images = FileImages(test, num_classes, transform)
        # ImageNet has several names for a class.
        names = [each if isinstance(each, str) else ", ".join(map(str, each)) for each in getattr(train, "classes", ())]
        classes = tuple(names) if len(names) == num_classes else ()
        return cls(name, train_images, test_images, num_classes, size, mean, std, classes)

    def hold_out(self, share: float) -> Images:
        """The image data with a share of the training images as test images, to choose without the test images.

        The share depends on the image data alone.

        Example:
            >>> from ghn_pyg.data import load_images
            >>> digits = load_images("digits").hold_out(0.1)
            >>> len(digits.train), len(digits.test)
            (1298, 144)
        """
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0)).tolist()
        count = int(share * len(order))
        train, test = self.train.take(sorted(order[count:])), self.train.plain().take(sorted(order[:count]))
        return dataclasses.replace(self, train=train, test=test)

    def few_shot(self, shots: int, seed: int = 0) -> Images:
        """The image data with as many training images of each class, drawn by the seed.

        Raises:
            ImagesError: If a class has fewer training images.

        Example:
            >>> from ghn_pyg.data import load_images
            >>> len(load_images("digits").few_shot(3).train)
            30
        """
        labels = self.train.all_labels()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        chosen = []
        for label in range(self.num_classes):
            found = order[labels[order] == label]
            if len(found) < shots:
                name = repr(self.classes[label]) if self.classes else str(label)
                raise ImagesError(
                    f"shots expected at most the {len(found)} training images of the class {name}, got {shots}"
                )
            chosen += found[:shots].tolist()
        return dataclasses.replace(self, train=self.train.take(sorted(chosen)))

    def check_trained_for(self, trained_for: TrainedFor | None) -> None:
        """Warns, once in a process, if a GHN was trained for other images; see :meth:`differences`."""
        if trained_for is not None and (found := self.differences(trained_for)):
            warn_once(f"the GHN was trained for {'; for '.join(found)}, so that its networks may be worse here")

    def differences(self, trained_for: TrainedFor) -> list[str]:
        """Where these images differ from those that a GHN was trained for, each as a sentence's part.

        Example:
            >>> from ghn_pyg import from_pretrained
            >>> from ghn_pyg.data import load_images
            >>> trained_for = from_pretrained("digits").config.trained_for
            >>> load_images("digits", image_size=8, normalization=(trained_for.mean, trained_for.std)).differences(
            ...     trained_for
            ... )
            ['images of 16 pixels, not of 8']
        """
        found = []
        if self.image_size != trained_for.image_size:
            found.append(f"images of {trained_for.image_size} pixels, not of {self.image_size}")
        if math.dist((*self.mean, *self.std), (*trained_for.mean, *trained_for.std)) > 1e-3:
            found.append(f"the normalisation {_rounded(trained_for.mean)} and {_rounded(trained_for.std)}, not "
                         f"{_rounded(self.mean)} and {_rounded(self.std)}")  # fmt: skip
        names = trained_for.classes, self.classes
        pairs = zip(*names, strict=True) if len(names[0]) == len(names[1]) else ()  # else see check_classes
        if other := next((pair for pair in pairs if pair[0] != pair[1]), None):
            found.append(f"other classes, such as {other[0]!r}, not {other[1]!r}")
        return found

    def check_classes(self, what: str, classes: int, advice: str = "") -> None:
        """Raises a ValueError if ``what`` is for another number of classes."""
        if classes != self.num_classes:
            raise ValueError(
                f"{what} is for {classes} classes and {self.name} has {self.num_classes}, so that accuracy would be "
                f"that of chance{advice and '; ' + advice}"
            )


def _rounded(colours: Colours) -> str:
    return "(" + ", ".join(f"{colour:.3g}" for colour in colours) + ")"
