import dataclasses
import math

import pytest
import torch
from torch import nn

from ghn_pyg.data.images import Images, TensorImages
from ghn_pyg.evaluation import measure
from ghn_pyg.evaluation.accuracy import Batches, evaluation_mode, in_top_k

GREY = (0.0, 0.0, 0.0)
UNIT = (1.0, 1.0, 1.0)


def white(count):
    """Image i has label i mod 7, and all pixels are 1."""
    pixels = torch.full((count, 3, 5, 5), 255, dtype=torch.uint8)
    return TensorImages(pixels, torch.arange(count) % 7, GREY, UNIT)


def numbered(count):
    """Image i has label and pixels i."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return TensorImages(pixels, torch.arange(count), GREY, UNIT)


@pytest.mark.parametrize("fault", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("k", [1, 3])
def test_logits_that_are_not_finite_are_wrong(fault, k):
    assert not in_top_k(torch.zeros(3, 3).fill_diagonal_(fault), torch.tensor([0, 0, 0]), k).any()


def test_batches_have_every_image_once_in_a_fixed_order():
    batches = Batches(numbered(131), seed=3)
    assert [len(labels) for _, labels in batches] == [64, 64, 3]
    assert [len(labels) for _, labels in Batches(numbered(129))] == [64, 65]  # two images at least
    assert [len(labels) for _, labels in Batches(numbered(3), size=1)] == [1, 1, 1]
    labels = torch.cat([labels for _, labels in batches])
    assert labels.sort().values.tolist() == list(range(131)) != labels.tolist()
    assert not torch.equal(labels, torch.cat([labels for _, labels in Batches(numbered(131), seed=4)]))
    images = torch.cat([images for images, _ in batches])
    torch.testing.assert_close(images[:, 0, 0, 0] * 255, labels.float())


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_reproducible(workers):
    batches, again = (Batches(numbered(131), seed=3, noise=UNIT) for _ in range(2))
    for (images, labels), (others, same) in zip(batches.load(workers), again, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, same)


def test_noise():
    clean, noisy = (Batches(white(640), 3, 640, noise)[0][0] for noise in (GREY, (0.5, 1, 2)))
    torch.testing.assert_close((noisy - clean).std((0, 2, 3)), torch.tensor([0.5, 1.0, 2.0]), rtol=0.03, atol=0)
    first, second = (images for images, _ in Batches(white(10), 3, 5, UNIT))
    assert not torch.equal(first, second)


def test_accuracy():
    # Of the labels 0 … 6, label 2 has the largest logit, label 0 the smallest and label 1 the second smallest.
    logits = torch.tensor([0.0, 1, 9, 2, 3, 4, 8])
    assert measure(lambda images: logits.expand(len(images), 7), Batches(white(70))) == pytest.approx((1 / 7, 5 / 7))
    # Any answer is among the first five of five classes.
    few = measure(lambda images: logits[:5].expand(len(images), 5), Batches(white(70)))
    assert (few.top1, math.isnan(few.top5)) == (pytest.approx(1 / 7), True)
    # A small last batch counts by its number of images.
    assert measure(lambda images: -logits.expand(len(images), 7), Batches(white(71))).top1 == pytest.approx(11 / 71)


def test_batch_norm_statistics():
    augmented = dataclasses.replace(white(70), augment=lambda pixels: pixels * 0)
    images = Images("white", augmented, white(70), 7, 5, GREY, UNIT)
    network = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Dropout(0.99), nn.Flatten())
    bright, brighter = torch.full((4, 3, 5, 5), 7.0), torch.full((4, 3, 5, 5), 9.0)
    brighter[:2] = 11
    with evaluation_mode(network, "batch", images, 0, None):
        torch.testing.assert_close(network(bright), torch.zeros(4, 75), rtol=0, atol=1e-3)
        torch.testing.assert_close(network(brighter)[[0, 2], 0], torch.tensor([1.0, -1.0]), rtol=1e-4, atol=0)
    assert network[0].running_mean.tolist() == [0, 0, 0]
    with evaluation_mode(network, "recalibrated", images, 0, None):  # without augmentation
        torch.testing.assert_close(network[0].running_mean, torch.ones(3))
        assert network(bright)[0, 0] > 6 / 1e-3**0.5


def test_batch_norms_without_running_statistics():
    images = Images("white", white(70), white(70), 7, 5, GREY, UNIT)
    network = nn.BatchNorm2d(3, track_running_stats=False)
    with (
        pytest.raises(ValueError, match="track no running statistics"),
        evaluation_mode(network, "running", images, 0, None),
    ):
        pass
    with evaluation_mode(network, "recalibrated", images, 0, None):
        torch.testing.assert_close(network.running_mean, torch.ones(3))
