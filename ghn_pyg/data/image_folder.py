"""Images in folders, in the layout of ImageNet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torchvision

from .augmentation import Normalization
from .images import Images, ImagesError

LAYOUT: Final = "expected FOLDER/train/CLASS/IMAGE and FOLDER/val/CLASS/IMAGE (or test), the layout of ImageNet"


def load_folder(folder: Path, size: int, augment: bool, normalization: Normalization | None) -> Images:
    """The images in ``train`` and in ``val`` or ``test``."""
    parts = folder / "train", folder / ("val" if (folder / "val").is_dir() else "test")
    try:
        train, test = (torchvision.datasets.ImageFolder(os.fspath(part)) for part in parts)
    except OSError as error:
        raise ImagesError(f"cannot read images in {folder}: {error}; {LAYOUT}") from error
    if train.classes != test.classes:
        names = ", ".join(sorted(set(train.classes) ^ set(test.classes))[:5])
        raise ImagesError(f"{parts[0]} and {parts[1]} have different classes, expected the same: {names}")
    return Images.from_datasets(folder.name, train, test, len(train.classes), size, augment, normalization)
