"""Image data of :mod:`torchvision.datasets`."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, Final

import torch
import torchvision
from torchvision.transforms import v2

from .augmentation import Normalization, shift_and_mirror
from .image_folder import LAYOUT
from .images import Images, ImagesError, TensorImages

CIFAR: Final[dict[str, Normalization]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""Mean and standard deviation of the colours."""

_SPLITS: Final = (("train", "trainval"), ("test", "val"))


def dataset_classes() -> dict[str, type]:
    """The classes of :mod:`torchvision.datasets`, by their names in lower case."""
    base = torchvision.datasets.VisionDataset
    classes = {name.lower(): getattr(torchvision.datasets, name) for name in torchvision.datasets.__all__}
    return {name: kind for name, kind in classes.items() if isinstance(kind, type) and issubclass(kind, base)}


def read_datasets(kind: type, folder: Path, download: bool) -> tuple[Any, Any]:
    """The data sets of training and test images of a class.

    Raises:
        ImagesError: If they cannot be read; the message says what to do.
    """
    parameters = inspect.signature(kind).parameters
    options = {"download": True} if download and _can_download(kind) else {}
    if "train" in parameters:
        return _read(kind, folder, train=True, **options), _read(kind, folder, train=False, **options)
    if "split" in parameters:
        return _read_split(kind, folder, _SPLITS[0], options), _read_split(kind, folder, _SPLITS[1], options)
    raise ImagesError(
        f"torchvision.datasets.{kind.__name__} has no division into training and test images; unpack it and give its "
        f"path: {LAYOUT}"
    )


def _read_split(kind: type, folder: Path, splits: tuple[str, str], options: dict[str, bool]) -> Any:
    """The first of the splits that the class knows."""
    errors = []
    for split in splits:
        try:
            return _read(kind, folder, split=split, **options)
        except ImagesError as error:
            if not isinstance(error.__cause__, ValueError):  # not an unknown split
                raise
            errors.append(error)
    raise errors[0]


def _read(kind: Any, folder: Path, **options: Any) -> Any:
    try:
        return kind(os.fspath(folder), **options)
    except (RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
        message = f"cannot read torchvision.datasets.{kind.__name__} in the folder {folder}: {error}"
        if isinstance(error, (ValueError, TypeError)):
            message += f". If it needs more than a split, unpack it and give its path: {LAYOUT}"
        elif isinstance(error, FileNotFoundError) or "not found" in str(error):
            download = "Download it with download=True (--download, for train -s download=true), or put"
            source = f"; it comes from {url}" if (url := getattr(kind, "url", None)) else ""
            message += f". {download if _can_download(kind) else 'Put'} its files there{source}"
        raise ImagesError(message) from error


def _can_download(kind: type) -> bool:
    """Whether the constructor, or that of a base class, takes ``download``."""
    bases = [base for base in kind.__mro__ if issubclass(base, torchvision.datasets.VisionDataset)]
    return any("download" in inspect.signature(base).parameters for base in bases)


def cifar_images(
    name: str, train: Any, test: Any, size: int, augment: bool, normalization: Normalization | None
) -> Images:
    """CIFAR-10 or CIFAR-100 in memory."""
    mean, std = normalization or CIFAR[name]
    image_sets = []
    for data, augmentation in ((train, shift_and_mirror if augment else None), (test, None)):
        pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        if size != pixels.size(-1):
            pixels = v2.functional.resize(pixels, [size, size], antialias=True)
        image_sets.append(TensorImages(pixels, torch.tensor(data.targets), mean, std, augmentation))
    return Images(name, image_sets[0], image_sets[1], len(train.classes), size, mean, std, tuple(train.classes))


def count_classes(dataset: Any) -> int:
    """Number of classes by their names, else by the labels; 0 if the data set has neither."""
    if names := getattr(dataset, "classes", ()):
        return len(names)
    labels = getattr(dataset, "targets", getattr(dataset, "labels", ()))
    return int(max(labels)) + 1 if len(labels) else 0
