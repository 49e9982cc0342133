"""Image data by name."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ..models.trained_for import TrainedFor
from ..utils.suggest import suggestion
from .augmentation import Normalization
from .digits import load_digits
from .image_folder import LAYOUT, load_folder
from .images import FileImages, Images, ImagesError
from .torchvision_datasets import CIFAR, cifar_images, count_classes, dataset_classes, read_datasets


def load_images(
    name: str | os.PathLike[str] | None = None, folder: str | os.PathLike[str] = "data", *,
    image_size: int | None = None, num_classes: int | None = None, download: bool = False, augment: bool = True,
    normalization: Normalization | None = None, trained_for: TrainedFor | None = None, skip_damaged: bool = False,
) -> Images:  # fmt: skip
    """Loads image data by name.

    - ``"digits"``: scikit-learn's 1,797 digits of 8×8 pixels, resized, in memory, without a download. Every fifth one
      of a class is a test image: 1,442 training and 355 test images.
    - ``"cifar10"``, ``"cifar100"``: in memory. Training images are shifted by up to 4 pixels and mirrored.
    - The name of a class in :mod:`torchvision.datasets`, in any case, whose images have one label each and whose
      constructor needs no more than ``train`` or ``split``: MNIST, FashionMNIST, KMNIST, QMNIST, USPS, STL10, SVHN,
      GTSRB, DTD, Flowers102, Food101, FGVCAircraft, OxfordIIITPet, StanfordCars, Country211, PCAM, RenderedSST2,
      Imagenette, ImageNet. Others, such as EMNIST, can be unpacked into a folder.
    - The path of a folder of images in the layout of ImageNet, ``train/CLASS/IMAGE`` and ``val/CLASS/IMAGE`` (or
      ``valid``, ``validation``, ``test``), or of ``CLASS/IMAGE`` alone, where a fifth of each class are test images;
      write ``"./digits"`` if it has a name from above.

    Grey images get three equal colours.

    Args:
        name: One of these; by default the data that ``trained_for`` has, else digits.
        folder: Folder with the files of a :mod:`torchvision.datasets` class.
        image_size: Height and width in pixels; by default that of ``trained_for``, else 16 for digits, 32 for CIFAR and
            224 for others.
        num_classes: Number of classes, for data sets of torchvision that do not have it, such as PCAM.
        download: Whether to download missing files, where torchvision can.
        augment: Whether to shift, crop and mirror training images; digits never are.
        normalization: Mean and standard deviation of the colours, for pixels from 0 to 1; by default those of
            ``trained_for``, else of the digits, of CIFAR, or of ImageNet for others.
        skip_damaged: Whether to leave out images that cannot be read. All files are read once to find them.
        trained_for: What the GHN was trained for that shall see the images (``ghn.config.trained_for``).

    Raises:
        ImagesError: If there is no such data or it cannot be read; the message says what to do.
        ImportError: If scikit-learn is not installed, for digits.

    Example:
        >>> digits = load_images("digits")
        >>> images, labels = digits.train.batch([0, 1, 2])
        >>> images.shape, labels.tolist()
        (torch.Size([3, 3, 16, 16]), [0, 1, 2])
    """
    if trained_for is not None:
        name, image_size = name or trained_for.data, image_size or trained_for.image_size
        normalization = normalization or (trained_for.mean, trained_for.std)
    images = _load(name or "digits", folder, image_size, num_classes, download, augment, normalization)
    if skip_damaged and isinstance(images.train, FileImages) and isinstance(images.test, FileImages):
        images = dataclasses.replace(images, train=images.train.readable(), test=images.test.readable())
    return dataclasses.replace(images, source=os.fspath(name or "digits"))


def _load(
    name: str | os.PathLike[str], folder: str | os.PathLike[str], image_size: int | None, num_classes: int | None,
    download: bool, augment: bool, normalization: Normalization | None,
) -> Images:  # fmt: skip
    if image_size is not None and image_size < 4:
        raise ImagesError(f"image_size expected at least 4 pixels, got {image_size}")
    key = os.fspath(name).lower().replace("-", "")
    reserved = isinstance(name, str) and key in ("digits", *CIFAR)  # even if there is such a folder, as that of a run
    name = os.path.expanduser(name)
    classes = dataset_classes()
    # A class of torchvision may keep its files in a folder of its own name, as MNIST does.
    if not reserved and Path(name).is_dir() and (key not in classes or Path(name, "train").is_dir()):
        return load_folder(Path(name), image_size, augment, normalization)
    if key == "digits":
        return load_digits(image_size or 16, normalization)
    if os.sep in name:
        raise ImagesError(f"there is no folder {name}; {LAYOUT}")
    if key not in classes:
        hint = suggestion(key, ["digits", *classes])
        raise ImagesError(f"there is no image data {name!r}, neither a folder nor in torchvision.datasets{hint}")
    train, test = read_datasets(classes[key], Path(folder).expanduser(), download)
    if key in CIFAR:
        return cifar_images(key, train, test, image_size or 32, augment, normalization)
    num_classes = count_classes(train) or num_classes
    if not num_classes:
        raise ImagesError(
            f"torchvision.datasets.{classes[key].__name__} has no number of classes; give num_classes (--num-classes)"
        )
    return Images.from_datasets(name, train, test, num_classes, image_size or 224, augment, normalization)
