"""Image data by name: training and test images with labels, normalised, and the same on every machine."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torchvision.transforms import v2

from ..utils.suggest import suggestion

Colours = tuple[float, float, float]

_DIGIT_RANGE: Final = 16
_DIGIT_TEST: Final = 5
_SMALL: Final = 64
_IMAGENET: Final[tuple[Colours, Colours]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR: Final[dict[str, tuple[Colours, Colours]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
_LAYOUT: Final = "expected FOLDER/train/CLASS/IMAGE and FOLDER/val/CLASS/IMAGE (or test), as ImageNet is unpacked"


class ImagesError(ValueError):
    """Image data cannot be found or read."""


class ImageSet(Protocol):
    """Images with labels, taken in batches."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images of shape (B, 3, H, W), normalised, and labels of shape (B,)."""
        ...

    def plain(self) -> ImageSet:
        """The same images without augmentation."""
        ...


@dataclasses.dataclass(frozen=True)
class TensorImages:
    """Images that lie in memory.

    Args:
        pixels: Of type uint8 and shape (N, 3, H, W).
        labels: Of shape (N,).
        mean: Mean of each colour, of pixels from 0 to 1.
        std: Standard deviation of each colour.
        augment: What is done with the pixels of each batch; it draws from PyTorch's global generator.
    """

    pixels: Tensor
    labels: Tensor
    mean: Colours
    std: Colours
    augment: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images and labels at some positions."""
        chosen = torch.as_tensor(positions)
        pixels = self.pixels[chosen]
        if self.augment is not None:
            pixels = self.augment(pixels)
        mean, std = (torch.tensor(colours).view(3, 1, 1) for colours in (self.mean, self.std))
        return (pixels / 255 - mean) / std, self.labels[chosen]

    def plain(self) -> TensorImages:
        """The same images without augmentation."""
        return dataclasses.replace(self, augment=None)


@dataclasses.dataclass(frozen=True)
class FileImages:
    """Images that are read one by one.

    Args:
        dataset: Gives (picture, label) by position.
        num_classes: Number of classes.
        whole: Makes a normalised tensor of shape (3, H, W) from a picture.
        varied: The same with augmentation.
    """

    dataset: Any
    num_classes: int
    whole: Callable[[Any], Tensor]
    varied: Callable[[Any], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images and labels at some positions.

        Raises:
            ImagesError: If a label is that of no class.
        """
        pictures, labels = zip(*(self.dataset[int(position)] for position in positions), strict=True)
        found = torch.tensor([int(label) for label in labels])
        if not 0 <= found.min() <= found.max() < self.num_classes:
            raise ImagesError(
                f"expected labels from 0 to {self.num_classes - 1}, got {found.min()} to {found.max()}; give the "
                "number of classes (num_classes, --num-classes)"
            )
        return torch.stack([(self.varied or self.whole)(picture) for picture in pictures]), found

    def plain(self) -> FileImages:
        """The same images without augmentation."""
        return dataclasses.replace(self, varied=None)


@dataclasses.dataclass(frozen=True)
class Images:
    """Image data.

    Args:
        name: What it was asked for by.
        train: Images to train on.
        test: Images to test on, without augmentation.
        num_classes: Number of classes.
        image_size: Height and width in pixels.
        mean: Mean of each colour that is subtracted from images, of pixels from 0 to 1.
        std: Standard deviation of each colour that images are divided by.
    """

    name: str
    train: ImageSet
    test: ImageSet
    num_classes: int
    image_size: int
    mean: Colours
    std: Colours

    def check_classes(self, what: str, classes: int, advice: str = "") -> None:
        """Raises a ValueError unless ``what`` is for as many classes as there are.

        Example:
            >>> load_images("digits").check_classes("the GHN", 10)
        """
        if classes != self.num_classes:
            raise ValueError(
                f"{what} is for {classes} classes and {self.name} has {self.num_classes}, so that accuracy would be "
                f"that of chance{advice and '; ' + advice}"
            )


def load_images(
    name: str | os.PathLike[str] = "digits", folder: str | os.PathLike[str] = "data", *,
    image_size: int | None = None, num_classes: int | None = None, download: bool = False, augment: bool = True,
) -> Images:  # fmt: skip
    """Loads image data by name.

    - ``"digits"``: scikit-learn's 1,797 digits of 8×8 pixels, resized, wholly in memory. It needs no download. Every
      fifth one of a class is for tests: 1,442 and 355.
    - ``"cifar10"``, ``"cifar100"``: in memory. Training images are shifted by up to 4 pixels and mirrored.
    - The name of a class in :mod:`torchvision.datasets`, in capitals or not, whose images have one label each and
      which takes no more than ``train``, or ``split``, to tell training from test images: MNIST, FashionMNIST, KMNIST,
      QMNIST, USPS, STL10, SVHN, GTSRB, DTD, Flowers102, Food101, FGVCAircraft, OxfordIIITPet, StanfordCars, Country211,
      PCAM, RenderedSST2, Imagenette, ImageNet. Others, as EMNIST, can be unpacked into a folder.
    - The path of a folder of images as ImageNet is unpacked; ``"./digits"`` for one with a name from above.

    Args:
        name: One of these.
        folder: Where the files of a :mod:`torchvision.datasets` class lie.
        image_size: Height and width in pixels. By default 16 for digits, 32 for CIFAR and 224 for others.
        num_classes: Number of classes, for those :mod:`torchvision.datasets` that do not tell it, such as PCAM.
        download: Whether to download what is missing, where torchvision can.
        augment: Whether training images are shifted, cropped and mirrored; digits never are.

    Raises:
        ImagesError: If there is no such data, or it cannot be read; the message says what to do.
        ImportError: If scikit-learn is missing, for digits.

    Example:
        >>> digits = load_images("digits")
        >>> images, labels = digits.train.batch([0, 1, 2])
        >>> images.shape, labels.tolist()
        (torch.Size([3, 3, 16, 16]), [0, 1, 2])
    """
    if image_size is not None and image_size < 4:
        raise ImagesError(f"image_size expected at least 4 pixels, got {image_size}")
    key = os.fspath(name).lower().replace("-", "")
    known = isinstance(name, str) and key in ("digits", *_CIFAR)  # whatever folders there are, as a run's own
    name = os.path.expanduser(name)
    classes = _dataset_classes()
    # A class of torchvision may keep its files in a folder of its own name, as MNIST does.
    if not known and Path(name).is_dir() and (key not in classes or Path(name, "train").is_dir()):
        return _from_folder(Path(name), image_size or 224, augment)
    if key == "digits":
        return _digits(image_size or 16)
    if os.sep in name:
        raise ImagesError(f"there is no folder {name}; {_LAYOUT}")
    if key not in classes:
        hint = suggestion(key, ["digits", *classes]) or "; nor is it a folder"
        raise ImagesError(f"there is no image data {name!r}: it is no class of torchvision.datasets{hint}")
    make = _Maker(classes[key], Path(folder).expanduser(), download)
    if key in _CIFAR:
        return _cifar(key, make, image_size or 32, augment)
    return _from_torchvision(name, make, image_size or 224, num_classes, augment)


def _digits(size: int) -> Images:
    try:
        data = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise ImportError('digits need scikit-learn; install it with: pip install "ghn_pyg[train]"') from error
    grey = torch.from_numpy(data.images).float().unsqueeze(1) / _DIGIT_RANGE
    grey = F.interpolate(grey, (size, size), mode="bilinear", align_corners=False, antialias=True)
    pixels = (grey * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(data.target).long()
    place = F.one_hot(labels).cumsum(0).gather(1, labels.unsqueeze(1)).squeeze(1)  # 1, 2, … within the class
    test = place % _DIGIT_TEST == 0
    shade = pixels[~test].float() / 255
    mean, std = (shade.mean().item(),) * 3, (shade.std().item(),) * 3
    train, held_out = (TensorImages(pixels[own], labels[own], mean, std) for own in (~test, test))
    return Images("digits", train, held_out, 10, size, mean, std)


@dataclasses.dataclass(frozen=True)
class _Maker:
    """Makes the data sets of a :mod:`torchvision.datasets` class."""

    kind: type
    folder: Path
    download: bool

    def __call__(self, train: bool) -> Any:
        names = inspect.signature(self.kind).parameters
        if "train" not in names and "split" not in names:
            raise ImagesError(
                f"torchvision.datasets.{self.kind.__name__} has no division into training and test images; unpack it "
                f"and give its path: {_LAYOUT}"
            )
        options = {"download": True} if self.download and self._downloads() else {}
        if "train" in names:
            return self._make(train=train, **options)
        refused = []
        for split in ("train", "trainval") if train else ("test", "val"):
            try:
                return self._make(split=split, **options)
            except ImagesError as error:
                if not isinstance(error.__cause__, ValueError):  # there is such a split
                    raise
                refused.append(error)
        raise refused[0]

    def _downloads(self) -> bool:
        """Whether the constructor takes ``download``, itself or for that of a base class."""
        bases = [kind for kind in self.kind.__mro__ if issubclass(kind, torchvision.datasets.VisionDataset)]
        return any("download" in inspect.signature(kind).parameters for kind in bases)

    def _make(self, **options: Any) -> Any:
        try:
            return self.kind(os.fspath(self.folder), **options)
        except (RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
            raise ImagesError(
                f"torchvision.datasets.{self.kind.__name__} cannot be read in the folder {self.folder}: {error}"
                + self._advice(error)
            ) from error

    def _advice(self, error: Exception) -> str:
        if isinstance(error, (ValueError, TypeError)):
            return f". If it needs more than a split, unpack it and give its path: {_LAYOUT}"
        if not isinstance(error, FileNotFoundError) and "not found" not in str(error):
            return ""
        link = f"; it comes from {url}" if (url := getattr(self.kind, "url", None)) else ""
        by = "Download it with download=True (--download, for train -s download=true), or put"
        way = by if self._downloads() else "Put"
        return f". {way} its files there{link}"


def _dataset_classes() -> dict[str, type]:
    """The classes of torchvision.datasets by name in lower case."""
    base = torchvision.datasets.VisionDataset
    found = {name.lower(): getattr(torchvision.datasets, name) for name in torchvision.datasets.__all__}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, base)}


def _cifar(name: str, make: _Maker, size: int, augment: bool) -> Images:
    mean, std = _CIFAR[name]
    found = [make(train) for train in (True, False)]
    parts = []
    for data in found:
        pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        if size != pixels.size(-1):
            pixels = v2.functional.resize(pixels, [size, size], antialias=True)
        change = shift_and_mirror if data is found[0] and augment else None
        parts.append(TensorImages(pixels, torch.tensor(data.targets), mean, std, change))
    return Images(name, parts[0], parts[1], len(found[0].classes), size, mean, std)


def shift_and_mirror(pixels: Tensor) -> Tensor:
    """Shifts each image by up to an eighth of its size, with black borders, and mirrors every second one at random.

    Args:
        pixels: Of shape (B, C, H, W).

    Example:
        >>> shift_and_mirror(torch.ones(2, 3, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """
    count, _, height, width = pixels.shape
    reach = width // 8
    padded = F.pad(pixels, [reach] * 4)
    rows, columns = (
        torch.randint(2 * reach + 1, (count, 1)) + torch.arange(length) for length in (height, width)
    )  # B × H, B × W
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    image = torch.arange(count).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


def _transforms(size: int) -> tuple[Any, Any]:
    """From a picture to a normalised tensor, for tests and with augmentation."""
    finish = [v2.PILToTensor(), v2.RGB(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*_IMAGENET)]
    if size <= _SMALL:
        whole: list[Any] = [v2.Resize((size, size))]
        varied: list[Any] = [*whole, v2.RandomCrop(size, padding=size // 8), v2.RandomHorizontalFlip()]
    else:
        whole = [v2.Resize(size * 256 // 224), v2.CenterCrop(size)]
        varied = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
    return v2.Compose(whole + finish), v2.Compose(varied + finish)


def _from_files(name: str, train: Any, test: Any, num_classes: int, size: int, augment: bool) -> Images:
    whole, varied = _transforms(size)
    learned = FileImages(train, num_classes, whole, varied if augment else None)
    return Images(name, learned, FileImages(test, num_classes, whole), num_classes, size, *_IMAGENET)


def _from_torchvision(name: str, make: _Maker, size: int, num_classes: int | None, augment: bool) -> Images:
    train, test = make(True), make(False)
    classes = _count_classes(train) or num_classes
    if not classes:
        raise ImagesError(
            f"torchvision.datasets.{make.kind.__name__} does not tell its classes; give num_classes (--num-classes)"
        )
    return _from_files(name, train, test, classes, size, augment)


def _count_classes(data: Any) -> int:
    """Classes of a data set by their names, else by its labels; 0 if it tells neither."""
    if names := getattr(data, "classes", ()):
        return len(names)
    labels = getattr(data, "targets", getattr(data, "labels", ()))
    return int(max(labels)) + 1 if len(labels) else 0


def _from_folder(folder: Path, size: int, augment: bool) -> Images:
    parts = (folder / "train", next((part for part in (folder / "val", folder / "test") if part.is_dir()), folder))
    if not parts[0].is_dir() or parts[1] == folder:
        raise ImagesError(f"the folder {folder} does not hold images as it should: {_LAYOUT}")
    try:
        train, test = (torchvision.datasets.ImageFolder(os.fspath(part)) for part in parts)
    except FileNotFoundError as error:
        raise ImagesError(f"cannot read images in {folder}: {error}; {_LAYOUT}") from error
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise ImagesError(f"{parts[0]} and {parts[1]} have different classes, expected the same: {', '.join(odd[:5])}")
    return _from_files(folder.name, train, test, len(train.classes), size, augment)
