"""Accuracy of the GHN that comes with the package, on networks that it has not seen."""

import dataclasses

import pytest
import torch

from ghn_pyg import from_pretrained
from ghn_pyg.data import load_images
from ghn_pyg.evaluation import deepnets_subjects, evaluate, torchvision_subjects
from ghn_pyg.families.deepnets.dataset import DeepNets


@pytest.mark.parametrize(
    ("networks", "least"),
    [
        (torchvision_subjects(["resnet18"], 10, 16), 0.8),
        pytest.param(torchvision_subjects(["resnet50"], 10, 16), 0.8, marks=pytest.mark.exhaustive),
        (deepnets_subjects(DeepNets("test", image_size=16, width=8)[:5]), 0.9),
    ],
    ids=["resnet18", "resnet50", "test split"],
)
def test_accuracy(networks, least):
    assert evaluate(from_pretrained("digits"), networks, load_images("digits")).mean("top1") > least


def in_order(images, order):
    """Image data whose test images are evaluated in this order with the seed 0."""
    test, position = images.test, torch.randperm(len(order), generator=torch.Generator().manual_seed(0)).argsort()
    order = order[position]
    return dataclasses.replace(
        images, test=dataclasses.replace(test, pixels=test.pixels[order], labels=test.labels[order])
    )


def test_accuracy_does_not_depend_on_the_batches():
    """To one image: sums in another order differ in their last digits."""
    ghn, digits = from_pretrained("digits"), load_images("digits")
    networks = deepnets_subjects(DeepNets("test", image_size=16, width=8)[2:3])
    by_class = in_order(digits, digits.test.labels.argsort(stable=True))
    reports = [
        evaluate(ghn, networks, images, **options)
        for images, options in ((digits, {}), (digits, {"batch_size": 5}), (by_class, {}))
    ]
    peeking = evaluate(ghn, networks, by_class, statistics="batch")
    for rows in zip(*(report.rows for report in (*reports, peeking)), strict=True):
        right = [round(355 * row.top1) for row in rows]
        assert max(right[:3]) - min(right[:3]) <= 1
        assert right[0] > 320 > 250 > right[3]
