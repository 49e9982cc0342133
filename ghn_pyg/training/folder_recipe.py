"""A recipe for a folder of images of one's own, on a few CPU cores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import yaml

from ..data import FileImages, ImagesError, load_images
from ..data.picture_statistics import colour_statistics, median_size
from ..utils.atomic_files import write_text

_SIZES: Final = (16, 32, 64)
_MANY: Final = 1000
"""From this number of training images on, some are held out to choose the best GHN."""

_BATCH_SIZES: Final = (32, 16, 8, 4, 2)


def recipe_for_folder(folder: str | os.PathLike[str], *, skip_damaged: bool = False) -> dict[str, Any]:
    """The fields of a :class:`~ghn_pyg.training.TrainConfig` for the images in a folder.

    The image size is 16, 32 or 64, whichever is nearest to the median of the shorter sides: larger images need too much
    time on a CPU. Colours are normalised by their mean and standard deviation in the training images. The run starts
    from the GHN for digits that comes with the package, which learns other images much sooner than new weights.

    Args:
        folder: A folder as for :func:`~ghn_pyg.data.load_images`.
        skip_damaged: Whether the run is to leave out images that cannot be read.

    Raises:
        ImagesError: If it holds no images in a known layout or too few, or an image cannot be read.

    Example:
        >>> recipe_for_folder("photos")["image_size"]  # doctest: +SKIP
        64
    """
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise ImagesError(f"there is no folder {folder}")
    images = load_images(folder, image_size=_SIZES[0], skip_damaged=skip_damaged)
    train = images.train
    assert isinstance(train, FileImages)
    side = min(median_size(train))
    size = min(_SIZES, key=lambda size: max(size / side, side / size))
    fits = [batch for batch in _BATCH_SIZES if batch <= len(train)]
    if images.num_classes < 2 or not fits:
        raise ImagesError(
            f"expected at least 2 classes and 2 training images in {folder}, got {images.num_classes} and {len(train)}"
        )
    return {
        "ghn": {
            "hidden_channels": 64, "max_channels": 32, "max_kernel_size": 7, "num_classes": images.num_classes,
            "layers": 3, "heads": 8,
        },
        "start": "digits",
        "images": str(folder),
        "image_size": size,
        "normalization": [list(colours) for colours in colour_statistics(train, size)],
        "held_out": 0.1 if len(train) >= _MANY else 0.0,
        "widths": {"widths": [8, 16, 32, 64]},
        "meta_batch": 4,
        "batch_size": fits[0],
        "learning_rate": 1e-3,
        "warmup_epochs": 0,
        "balance": True,
        "ema": 0.99,
        "checkpoint_every": 100,
    }  # fmt: skip


def write_recipe(path: Path, fields: dict[str, Any], comment: str) -> None:
    """Writes a recipe as YAML, with a comment of one line, for :func:`~ghn_pyg.training.load_config`."""
    text = yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    write_text(path, f"# {comment}\n{text}")
