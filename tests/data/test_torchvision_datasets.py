import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision

from ghn_pyg.data import ImagesError, load_images


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", r"no image data 'digit'.*did you mean digits"),
        ("CIFAR-11", "did you mean .*cifar10"),
        ("qqqqq", "neither a folder nor in torchvision.datasets"),
        (
            "cifar10",
            r"torchvision.datasets.CIFAR10 in the folder .*: Dataset not found.*download=True.*it comes from http",
        ),
        ("stl10", "STL10 in the folder .*download=True"),
        ("OxfordIIITPet", "OxfordIIITPet in the folder .*download=True"),  # which has trainval, but no train
        ("fer2013", r"FER2013 in the folder .*[^=]$"),
        ("EMNIST", r"EMNIST in the folder .*Unknown value 'train' for argument split.* more than a split, unpack it"),
        ("Caltech101", "has no division into training and test images"),
    ],
)
def test_missing_data(name, message, tmp_path):
    with pytest.raises(ImagesError, match=message) as error:
        load_images(name, tmp_path / "nowhere")
    assert ("Download it" in str(error.value)) == ("download=True" in message)


@pytest.fixture
def fake(monkeypatch):
    """Replaces a class of torchvision by one without files."""

    def replace(name, splits, **attributes):
        class Fake(torchvision.datasets.VisionDataset):
            def __init__(self, root, split, transform=None, download=False):
                if split not in splits:
                    raise ValueError("unknown split")
                super().__init__(root, transform=transform)
                self.size = {"train": 5, "trainval": 5, "test": 3, "val": 3}[split] + 10 * download

            def __len__(self):
                return self.size

        for attribute, value in attributes.items():
            setattr(Fake, attribute, value)
        monkeypatch.setattr(torchvision.datasets, name, Fake)

    return replace


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val"), ("trainval", "test")])
def test_splits(tmp_path, fake, splits):
    fake("OxfordIIITPet", splits, classes=("cat", "dog", "ant"))
    images = load_images("oxfordiiitpet", tmp_path, num_classes=7)
    assert (images.num_classes, len(images.train), len(images.test)) == (3, 5, 3)
    assert len(load_images("oxfordiiitpet", tmp_path, download=True).train) == 15


def test_a_data_set_without_a_number_of_classes(tmp_path, fake):
    fake("PCAM", ("train", "val"))
    with pytest.raises(ImagesError, match="has no number of classes; give num_classes"):
        load_images("pcam", tmp_path)
    assert load_images("pcam", tmp_path, num_classes=11).num_classes == 11


@pytest.mark.parametrize("name", ["targets", "labels"])
def test_classes_are_counted_by_labels(tmp_path, fake, name):
    """Whatever number is given: a GHN for another number has the accuracy of chance."""
    fake("USPS", ("train", "test"), **{name: np.array([3, 6, 0])})
    assert load_images("usps", tmp_path, num_classes=1000).num_classes == 7


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
