"""Images in folders, in the layout of ImageNet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torchvision

from .images import Images, ImagesError

LAYOUT: Final = "expected FOLDER/train/CLASS/IMAGE and FOLDER/val/CLASS/IMAGE (or test), the layout of ImageNet"


def load_folder(folder: Path, size: int, augment: bool) -> Images:
    """Image data in a folder.

    Raises:
        ImagesError: If it has another layout, or training and test images have different classes.
    """
    train_folder = folder / "train"
    test_folder = next((path for path in (folder / "val", folder / "test") if path.is_dir()), None)
    if not train_folder.is_dir() or test_folder is None:
        raise ImagesError(f"the folder {folder} does not contain image data: {LAYOUT}")
    try:
        train, test = (torchvision.datasets.ImageFolder(os.fspath(path)) for path in (train_folder, test_folder))
    except FileNotFoundError as error:
        raise ImagesError(f"cannot read images in {folder}: {error}; {LAYOUT}") from error
    if train.classes != test.classes:
        names = ", ".join(sorted(set(train.classes) ^ set(test.classes))[:5])
        raise ImagesError(f"{train_folder} and {test_folder} have different classes, expected the same: {names}")
    return Images.from_datasets(folder.name, train, test, len(train.classes), size, augment)
