"""Images in folders, one for each class."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Final

import torch
import torchvision
from PIL import Image

from ..utils.warn_once import warn_once
from .augmentation import Normalization
from .images import Images, ImagesError

LAYOUT: Final = (
    "expected FOLDER/train/CLASS/IMAGE and FOLDER/val/CLASS/IMAGE (or test), the layout of ImageNet, or only "
    "FOLDER/CLASS/IMAGE"
)

_TEST_FOLDERS: Final = ("val", "valid", "validation", "test")
_TEST_SHARE: Final = 0.2
_DEFAULT_SIZE: Final = 224


class _Folder(torchvision.datasets.ImageFolder):
    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """The classes without hidden folders, which are those of tools, such as .ipynb_checkpoints."""
        classes = [name for name in super().find_classes(directory)[0] if not name.startswith(".")]
        return classes, {name: label for label, name in enumerate(classes)}


def load_folder(folder: Path, size: int | None, augment: bool, normalization: Normalization | None) -> Images:
    """The images in ``train`` and in ``val`` or ``test``, by default of 224 pixels.

    Without a folder of test images, a fifth of the images of each class are test images, which depends on their number
    alone.
    """
    found = [folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()]
    root = folder / "train" if found or (folder / "train").is_dir() else folder
    try:
        train, test = (_Folder(os.fspath(part)) for part in (root, found[0] if found else root))
    except OSError as error:
        raise ImagesError(f"cannot read images in {folder}: {error}; {LAYOUT}") from error
    if train.classes != test.classes:
        names = ", ".join(sorted(set(train.classes) ^ set(test.classes))[:5])
        raise ImagesError(f"{root} and {found[0]} have different classes, expected the same: {names}")
    if size is None:
        size = _DEFAULT_SIZE
        with contextlib.suppress(OSError), Image.open(train.samples[0][0]) as picture:
            if max(picture.size) < size:
                warn_once(
                    f"images of {folder}, such as one of {picture.size[0]}×{picture.size[1]} pixels, are enlarged to "
                    f"{size}; give their size (image_size, --image-size, for train -s image_size=N)"
                )
    images = Images.from_datasets(folder.name, train, test, len(train.classes), size, augment, normalization)
    if found:
        return images
    if not (chosen := _test_images(train.targets)):
        raise ImagesError(f"{root} has one image of each class and none to test with, expected more; {LAYOUT}")
    rest = sorted(set(range(len(train))) - set(chosen))
    return dataclasses.replace(images, train=images.train.take(rest), test=images.test.take(chosen))


def _test_images(labels: list[int]) -> list[int]:
    """The numbers of a fifth of the images of each class, at least one of them unless it is the only one."""
    generator = torch.Generator().manual_seed(0)
    chosen: list[int] = []
    for label in sorted(set(labels)):
        numbers = torch.tensor([number for number, other in enumerate(labels) if other == label])
        order = torch.randperm(len(numbers), generator=generator)
        count = min(max(1, round(_TEST_SHARE * len(numbers))), len(numbers) - 1)
        chosen += numbers[order[:count]].tolist()
    return sorted(chosen)
