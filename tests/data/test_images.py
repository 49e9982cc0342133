import dataclasses
import hashlib
import itertools
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from ghn_pyg.data import ImagesError, load_images, shift_and_mirror


def write_pictures(folder, classes, sizes=((40, 30),)):
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number, size in enumerate(sizes):
            Image.new("RGB" if number % 2 else "L", size, 40 * label).save(folder / name / f"{number}.png")


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


def test_digits():
    digits = load_images("digits")
    assert (len(digits.train), len(digits.test)) == (1442, 355)
    assert (digits.num_classes, digits.image_size) == (10, 16)
    images, labels = digits.train.batch(range(1442))
    assert images.shape == (1442, 3, 16, 16)
    torch.testing.assert_close(images.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std(), torch.tensor(1.0), atol=1e-5, rtol=0)
    assert labels[:11].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    tested, classes = digits.test.batch(range(355))
    assert torch.equal(tested[:, 0], tested[:, 2])
    assert torch.bincount(classes).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]  # every fifth of each
    assert torch.bincount(labels).tolist() == [143, 146, 142, 147, 145, 146, 145, 144, 140, 144]


def test_digits_of_another_size():
    digits = load_images("Digits", image_size=8)
    pixels = digits.train.pixels[0, 0]
    assert pixels.shape == (8, 8)
    assert pixels[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 of 16


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "ghn_pyg\[train\]"'):
        load_images("digits")


def test_shifts_and_mirrors():
    """Each image is one of the windows of the padded image, or its mirror image."""
    torch.manual_seed(3)
    pixels = torch.arange(1, 2 * 3 * 17 * 19 + 1).view(2, 3, 17, 19)
    padded = torch.nn.functional.pad(pixels, [2] * 4)
    seen = set()
    for _ in range(40):
        for image, result in enumerate(shift_and_mirror(pixels)):
            windows = padded[image].unfold(1, 17, 1).unfold(2, 19, 1)
            found = {
                (top, left, mirrored)
                for top, left, mirrored in itertools.product(range(5), range(5), (False, True))
                if torch.equal(result, windows[:, top, left].flip(2) if mirrored else windows[:, top, left])
            }
            assert len(found) == 1
            seen |= found
    assert len({top for top, _, _ in seen}) == len({left for _, left, _ in seen}) == 5
    assert {mirrored for _, _, mirrored in seen} == {False, True}


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-10 with 7 images in each file."""
    kind, folder = torchvision.datasets.CIFAR10, tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data, usedforsecurity=False).hexdigest()]

    pixels = np.random.default_rng(3).integers(256, size=(7, 3072), dtype=np.uint8)
    for field in ("train_list", "test_list"):
        files = [name for name, _ in getattr(kind, field)]
        monkeypatch.setattr(kind, field, [write(name, {"data": pixels, "labels": list(range(7))}) for name in files])
    name, digest = write("batches.meta", {"label_names": [*"abcdefghij"]})
    monkeypatch.setattr(kind, "meta", {"filename": name, "key": "label_names", "md5": digest})
    return tmp_path, torch.from_numpy(pixels).view(7, 3, 32, 32)


def test_cifar(cifar):
    folder, pixels = cifar
    images = load_images("CIFAR-10", folder)
    assert (images.name, images.num_classes, images.image_size) == ("cifar10", 10, 32)
    assert (len(images.train), len(images.test)) == (35, 7)
    batch, labels = images.test.batch([5, 2])
    assert labels.tolist() == [5, 2]
    expected = (pixels[5, 1].double() / 255 - 0.4822) / 0.2435
    torch.testing.assert_close(batch[0, 1].double(), expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(images.train.batch([5])[0], batch[:1])
    assert torch.equal(load_images("cifar10", folder, augment=False).train.batch([5, 2])[0], batch)
    assert load_images("cifar10", folder, image_size=8).test.batch([5])[0].shape == (1, 3, 8, 8)


def test_a_class_of_torchvision(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 5), ("t10k", 3)):
        shades = np.full((count, 28, 28), 51, np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte", shades)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    images = load_images("mnist", tmp_path, image_size=24)
    assert (len(images.train), len(images.test), images.num_classes) == (5, 3, 10)
    batch, labels = images.test.batch(torch.tensor([2, 0]))
    assert batch.shape == (2, 3, 24, 24)
    assert labels.tolist() == [2, 0]
    torch.testing.assert_close(batch[0, :, 3, 5], (torch.tensor([0.2] * 3) - torch.tensor([0.485, 0.456, 0.406]))
                               / torch.tensor([0.229, 0.224, 0.225]), rtol=1e-5, atol=1e-5)  # fmt: skip


def test_a_folder(tmp_path):
    for part in ("train", "val"):
        write_pictures(tmp_path / part, ["ant", "bee"], [(40, 30), (90, 70)])
    images = load_images(tmp_path, image_size=72)
    assert (images.num_classes, len(images.train), images.name) == (2, 4, tmp_path.name)
    batch, labels = images.test.batch([3, 0])
    assert batch.shape == images.train.batch([1, 2])[0].shape == (2, 3, 72, 72)
    assert labels.tolist() == [1, 0]


def test_faulty_folders(tmp_path):
    with pytest.raises(ImagesError, match=r"there is no folder .*missing; expected FOLDER/train/CLASS"):
        load_images(str(tmp_path / "missing"))
    with pytest.raises(ImagesError, match=r"does not hold images as it should: expected FOLDER/train/CLASS"):
        load_images(tmp_path)
    write_pictures(tmp_path / "train", ["ant", "bee"])
    (tmp_path / "test").mkdir()
    with pytest.raises(ImagesError, match="cannot read images"):
        load_images(tmp_path)
    write_pictures(tmp_path / "test", ["ant", "cow"])
    with pytest.raises(ImagesError, match="different classes, expected the same: bee, cow"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", r"no image data 'digit'.*did you mean digits"),
        ("CIFAR-11", "did you mean .*cifar10"),
        ("qqqqq", "nor is it a folder"),
        ("cifar10", r"CIFAR10 cannot be read in the folder .*: Dataset not found.*download=True.*it comes from http"),
        ("stl10", "STL10 cannot be read in the folder .*download=True"),
        ("fer2013", r"FER2013 cannot be read in the folder .*[^=]$"),
        ("EMNIST", r"EMNIST cannot be read .*Unknown value 'train' for argument split.* more than a split, unpack it"),
        ("Caltech101", "has no division into training and test images"),
    ],
)
def test_data_that_is_not_there(name, message, tmp_path):
    with pytest.raises(ImagesError, match=message):
        load_images(name, tmp_path / "nowhere")


def test_only_what_is_missing_is_advised_to_download(tmp_path):
    with pytest.raises(ImagesError) as error:
        load_images("EMNIST", tmp_path)
    assert "ownload" not in str(error.value)


def test_a_folder_of_the_name_of_known_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # as by: ghn-pyg train digits --out digits
    (tmp_path / "pictures").mkdir()
    assert load_images("digits").num_classes == 10
    for folder in ("./digits", Path("digits"), "pictures"):
        with pytest.raises(ImagesError, match="does not hold images as it should"):
            load_images(folder)


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val"), ("trainval", "test")])
def test_names_of_splits(tmp_path, monkeypatch, splits):
    class Pets(torchvision.datasets.VisionDataset):
        classes = ("cat", "dog", "ant")

        def __init__(self, root, split, transform=None, download=False):
            if split not in splits:
                raise ValueError("unknown split")
            super().__init__(root, transform=transform)
            self.size = {"train": 5, "trainval": 5, "test": 3, "val": 3}[split] + 10 * download

        def __len__(self):
            return self.size

    monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", Pets)
    images = load_images("oxfordiiitpet", tmp_path, num_classes=7)
    assert (images.num_classes, len(images.train), len(images.test)) == (3, 5, 3)
    assert len(load_images("oxfordiiitpet", tmp_path, download=True).train) == 15


def test_classes_that_a_data_set_does_not_tell(tmp_path, monkeypatch):
    class Untold(torchvision.datasets.VisionDataset):
        def __init__(self, root, split, transform=None):
            if split not in ("train", "val"):
                raise ValueError("unknown split")
            super().__init__(root, transform=transform)
            self.split = split

        def __len__(self):
            return {"train": 5, "val": 3}[self.split]

    monkeypatch.setattr(torchvision.datasets, "PCAM", Untold)
    with pytest.raises(ImagesError, match="does not tell its classes; give num_classes"):
        load_images("pcam", tmp_path)
    images = load_images("pcam", tmp_path, num_classes=11)
    assert (images.num_classes, len(images.train), len(images.test)) == (11, 5, 3)


@pytest.mark.parametrize("name", ["targets", "labels"])
def test_labels_tell_the_classes(tmp_path, monkeypatch, name):
    """As those of USPS and SVHN, whatever number is given: a GHN for others has the accuracy of chance."""

    class Labelled(torchvision.datasets.VisionDataset):
        def __init__(self, root, train, transform=None):
            super().__init__(root, transform=transform)
            setattr(self, name, np.array([3, 6, 0]))

        def __len__(self):
            return 3

    monkeypatch.setattr(torchvision.datasets, "USPS", Labelled)
    assert load_images("usps", tmp_path, num_classes=1000).num_classes == 7


def test_the_files_of_a_class_do_not_hide_it(tmp_path, monkeypatch):
    """A second use finds the folder MNIST, where the first one put its files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    with pytest.raises(ImagesError, match=r"torchvision\.datasets\.MNIST cannot be read in the folder \."):
        load_images("MNIST", ".")
    for part in ("train", "val"):
        write_pictures(tmp_path / "imagenet" / part, ["ant"], [(40, 30)])
    assert load_images("imagenet", "nowhere").num_classes == 1


def test_images_need_some_size():
    with pytest.raises(ImagesError, match="image_size expected at least 4 pixels, got 3"):
        load_images("digits", image_size=3)


def test_labels_of_no_class(tmp_path):
    for part in ("train", "val"):
        write_pictures(tmp_path / part, ["ant", "bee"], [(40, 30)])
    images = load_images(tmp_path, image_size=8)
    assert images.test.batch([0, 1])[1].tolist() == [0, 1]
    with pytest.raises(ImagesError, match=r"expected labels from 0 to 0, got 0 to 1; give the number of classes"):
        dataclasses.replace(images.test, num_classes=1).batch([0, 1])


def test_images_without_augmentation(tmp_path):
    for part in ("train", "val"):
        write_pictures(tmp_path / part, ["ant", "bee"], [(90, 70), (80, 50)])
    images = load_images(tmp_path, image_size=64)
    expected = images.test.batch([3, 2])[0]
    assert torch.equal(images.train.plain().batch([3, 2])[0], expected)
    assert torch.equal(load_images(tmp_path, image_size=64, augment=False).train.batch([3, 2])[0], expected)
    torch.manual_seed(0)
    assert not torch.equal(images.train.batch([3, 2])[0], expected)


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for part in ("train", "val"):
        write_pictures(tmp_path / "pictures" / part, ["ant"], [(40, 30)])
    assert load_images("~/pictures").name == "pictures"


def test_downloads_of_a_derived_class(tmp_path, monkeypatch):
    """QMNIST takes what it does not know for MNIST."""
    asked = []

    class Derived(torchvision.datasets.MNIST):
        def __init__(self, root, train=True, **options):
            asked.append(options)
            raise RuntimeError("Dataset not found")

    monkeypatch.setattr(torchvision.datasets, "QMNIST", Derived)
    with pytest.raises(ImagesError, match="Download it with download=True"):
        load_images("qmnist", tmp_path)
    with pytest.raises(ImagesError):
        load_images("qmnist", tmp_path, download=True)
    assert asked == [{}, {"download": True}]
