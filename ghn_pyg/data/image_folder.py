"""Images in folders, in the layout of ImageNet."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import torchvision
from PIL import Image

from ..utils.warn_once import warn_once
from .augmentation import Normalization
from .images import Images, ImagesError

LAYOUT: Final = "expected FOLDER/train/CLASS/IMAGE and FOLDER/val/CLASS/IMAGE (or test), the layout of ImageNet"


_DEFAULT_SIZE: Final = 224


def load_folder(folder: Path, size: int | None, augment: bool, normalization: Normalization | None) -> Images:
    """The images in ``train`` and in ``val`` or ``test``, by default of 224 pixels."""
    parts = folder / "train", folder / ("val" if (folder / "val").is_dir() else "test")
    try:
        train, test = (torchvision.datasets.ImageFolder(os.fspath(part)) for part in parts)
    except OSError as error:
        raise ImagesError(f"cannot read images in {folder}: {error}; {LAYOUT}") from error
    if train.classes != test.classes:
        names = ", ".join(sorted(set(train.classes) ^ set(test.classes))[:5])
        raise ImagesError(f"{parts[0]} and {parts[1]} have different classes, expected the same: {names}")
    if size is None:
        size = _DEFAULT_SIZE
        with contextlib.suppress(OSError), Image.open(train.samples[0][0]) as picture:
            if max(picture.size) < size:
                warn_once(
                    f"images of {folder}, such as one of {picture.size[0]}×{picture.size[1]} pixels, are enlarged to "
                    f"{size}; give their size (image_size, --image-size, for train -s image_size=N)"
                )
    return Images.from_datasets(folder.name, train, test, len(train.classes), size, augment, normalization)
