import dataclasses

import pytest
import torch
from ghn_pyg.data import Images, TensorImages, load_images
from torch import nn

from ghn_pyg.evaluation.accuracy import Batches, hits, measure, norms

NAN, INF = torch.nan, torch.inf
GREY = (0.0, 0.0, 0.0)
UNIT = (1.0, 1.0, 1.0)


def shades(count, shade=255):
    """Image i has label i mod 7, and all images one shade."""
    pixels = torch.full((count, 3, 5, 5), shade, dtype=torch.uint8)
    return TensorImages(pixels, torch.arange(count) % 7, GREY, UNIT)


def numbered(count):
    """Image i is of shade i, so that batches tell which images are in them."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return TensorImages(pixels, torch.arange(count), GREY, UNIT)


class Constant(nn.Module):
    """Always the same logits."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def test_hits():
    logits = torch.tensor([[5.0, 4, 3, 2, 1, 0, -1]] * 7)
    labels = torch.arange(7)
    assert hits(logits, labels, 1).tolist() == [True] + [False] * 6
    assert hits(logits, labels, 5).tolist() == [True] * 5 + [False] * 2
    assert hits(logits[:, :3], torch.tensor([2] * 7), 5).tolist() == [True] * 7


@pytest.mark.parametrize("fault", [NAN, INF, -INF])
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("top", [1, 2, 3])
def test_logits_that_are_not_finite_are_wrong(fault, place, top):
    logits = torch.zeros(3, 3)
    logits[1, place] = fault
    assert not hits(logits, torch.tensor([0, 1, 2]), top)[1]


def test_every_image_is_there_once_in_a_fixed_order():
    batches = Batches(numbered(131), seed=3)
    assert [len(labels) for _, labels in batches] == [64, 64, 3]
    labels = torch.cat([labels for _, labels in batches])
    assert labels.sort().values.tolist() == list(range(131))
    assert labels.tolist() != list(range(131))
    assert torch.equal(labels, torch.cat([labels for _, labels in Batches(numbered(131), seed=3)]))
    assert not torch.equal(labels, torch.cat([labels for _, labels in Batches(numbered(131), seed=4)]))
    images = torch.cat([images for images, _ in batches])
    torch.testing.assert_close(images[:, 0, 0, 0] * 255, labels.float())


def test_a_batch_has_at_least_two_images():
    assert [len(labels) for _, labels in Batches(numbered(129))] == [64, 65]
    assert [len(labels) for _, labels in Batches(numbered(1))] == [1]


def test_workers_change_nothing():
    batches = Batches(numbered(131), seed=3, noise=UNIT)
    for (images, labels), (others, same) in zip(batches.load(1), batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, same)


def test_noise():
    clean, noisy, again = (Batches(shades(640), 3, 640, noise)[0][0] for noise in (GREY, (0.5, 1, 2), (0.5, 1, 2)))
    assert torch.equal(noisy, again)
    torch.testing.assert_close((noisy - clean).std((0, 2, 3)), torch.tensor([0.5, 1.0, 2.0]), rtol=0.03, atol=0)
    first, second = (images for images, _ in Batches(shades(10), 3, 5, UNIT))
    assert not torch.equal(first, second)


def test_measure():
    # Labels 0 … 6 of 70 images: label 2 comes first, label 6 second.
    accuracy = measure(Constant(0.0, 1, 9, 2, 3, 4, 8), Batches(shades(70)))
    assert accuracy.top1 == pytest.approx(1 / 7)
    assert accuracy.top5 == pytest.approx(5 / 7)
    # Batches of different size weigh as many images as they have.
    accuracy = measure(Constant(9.0, 1, 2, 3, 4, 5, 6), Batches(shades(71)))
    assert accuracy.top1 == pytest.approx(11 / 71)


def test_batch_norms():
    images = Images("grey", shades(70), shades(70), 7, 5, (0.0, 0.0, 0.0), UNIT)
    network = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Dropout(0.99), nn.Flatten())
    bright, brighter = torch.full((4, 3, 5, 5), 7.0), torch.full((4, 3, 5, 5), 9.0)
    brighter[:2] = 11
    with norms(network, "batch", images, 0, None):
        torch.testing.assert_close(network(bright), torch.zeros(4, 75), rtol=0, atol=1e-3)
        torch.testing.assert_close(network(brighter)[[0, 2], 0], torch.tensor([1.0, -1.0]), rtol=1e-4, atol=0)
    assert network[0].running_mean.tolist() == [0, 0, 0]
    with norms(network, "recalibrated", images, 0, None):
        torch.testing.assert_close(network[0].running_mean, torch.ones(3))
        assert network(bright)[0, 0] > 6 / 1e-3**0.5
    network[0] = nn.BatchNorm2d(3, track_running_stats=False)
    for statistics in ("recalibrated", "running"):
        with (
            pytest.raises(ValueError, match="its batch norms keep no statistics of their own"),
            norms(network, statistics, images, 0, None),
        ):
            pass


def test_statistics_are_those_of_images_without_augmentation():
    varied = dataclasses.replace(shades(70), augment=lambda pixels: pixels * 0)
    network = nn.BatchNorm2d(3, affine=False)
    with norms(network, "recalibrated", Images("grey", varied, varied, 7, 5, (0.0, 0.0, 0.0), UNIT), 0, None):
        torch.testing.assert_close(network.running_mean, torch.ones(3))


def test_digits_come_without_augmentation():
    digits = load_images(image_size=8)
    assert sum(len(labels) for _, labels in Batches(digits.test)) == 355
