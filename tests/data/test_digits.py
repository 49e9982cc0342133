import sys

import pytest
import torch

from ghn_pyg.data import load_images


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
