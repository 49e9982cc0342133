"""Image data of :mod:`torchvision.datasets`."""

from __future__ import annotations

import dataclasses
import inspect
import os
from pathlib import Path
from typing import Any, Final

import torch
import torchvision
from torchvision.transforms import v2

from .augmentation import Colours, shift_and_mirror
from .image_folder import LAYOUT
from .images import Images, ImagesError, TensorImages

CIFAR: Final[dict[str, tuple[Colours, Colours]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""Mean and standard deviation of the colours."""


def dataset_classes() -> dict[str, type]:
    """The classes of :mod:`torchvision.datasets`, by their names in lower case."""
    base = torchvision.datasets.VisionDataset
    classes = {name.lower(): getattr(torchvision.datasets, name) for name in torchvision.datasets.__all__}
    return {name: kind for name, kind in classes.items() if isinstance(kind, type) and issubclass(kind, base)}


@dataclasses.dataclass(frozen=True)
class DatasetReader:
    """Reads the training or test images of a class of :mod:`torchvision.datasets`.

    Args:
        kind: The class.
        folder: Folder with its files.
        download: Whether to download missing files, if the class can.
    """

    kind: type
    folder: Path
    download: bool

    def read(self, train: bool) -> Any:
        """The data set of training or test images.

        Raises:
            ImagesError: If it cannot be read; the message says what to do.
        """
        parameters = inspect.signature(self.kind).parameters
        if "train" not in parameters and "split" not in parameters:
            raise ImagesError(
                f"torchvision.datasets.{self.kind.__name__} has no division into training and test images; unpack it "
                f"and give its path: {LAYOUT}"
            )
        options = {"download": True} if self.download and self._downloads() else {}
        if "train" in parameters:
            return self._read(train=train, **options)
        errors = []
        for split in ("train", "trainval") if train else ("test", "val"):
            try:
                return self._read(split=split, **options)
            except ImagesError as error:
                if not isinstance(error.__cause__, ValueError):  # not an unknown split
                    raise
                errors.append(error)
        raise errors[0]

    def _downloads(self) -> bool:
        """Whether the constructor, or that of a base class, takes ``download``."""
        bases = [kind for kind in self.kind.__mro__ if issubclass(kind, torchvision.datasets.VisionDataset)]
        return any("download" in inspect.signature(kind).parameters for kind in bases)

    def _read(self, **options: Any) -> Any:
        try:
            return self.kind(os.fspath(self.folder), **options)
        except (RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
            name = f"torchvision.datasets.{self.kind.__name__}"
            raise ImagesError(
                f"cannot read {name} in the folder {self.folder}: {error}{self._advice(error)}"
            ) from error

    def _advice(self, error: Exception) -> str:
        if isinstance(error, (ValueError, TypeError)):
            return f". If it needs more than a split, unpack it and give its path: {LAYOUT}"
        if not isinstance(error, FileNotFoundError) and "not found" not in str(error):
            return ""
        source = f"; it comes from {url}" if (url := getattr(self.kind, "url", None)) else ""
        download = "Download it with download=True (--download, for train -s download=true), or put"
        return f". {download if self._downloads() else 'Put'} its files there{source}"


def load_cifar(name: str, reader: DatasetReader, size: int, augment: bool) -> Images:
    """CIFAR-10 or CIFAR-100 in memory."""
    mean, std = CIFAR[name]
    image_sets = []
    for train in (True, False):
        data = reader.read(train)
        pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        if size != pixels.size(-1):
            pixels = v2.functional.resize(pixels, [size, size], antialias=True)
        augmentation = shift_and_mirror if train and augment else None
        image_sets.append(TensorImages(pixels, torch.tensor(data.targets), mean, std, augmentation))
    return Images(name, image_sets[0], image_sets[1], len(data.classes), size, mean, std)


def load_dataset(name: str, reader: DatasetReader, size: int, num_classes: int | None, augment: bool) -> Images:
    """Another class of :mod:`torchvision.datasets`."""
    train, test = reader.read(True), reader.read(False)
    if names := getattr(train, "classes", ()):
        num_classes = len(names)
    elif len(labels := getattr(train, "targets", getattr(train, "labels", ()))):
        num_classes = int(max(labels)) + 1
    if not num_classes:
        raise ImagesError(
            f"torchvision.datasets.{reader.kind.__name__} has no number of classes; give num_classes (--num-classes)"
        )
    return Images.from_datasets(name, train, test, num_classes, size, augment)
