"""Accuracy of the GHN that comes with the package, on networks that it has not seen."""

import pytest

from ghn_pyg import from_pretrained
from ghn_pyg.data import load_images
from ghn_pyg.evaluation import deepnets_subjects, evaluate, torchvision_subjects
from ghn_pyg.families.deepnets.dataset import DeepNets


@pytest.mark.parametrize(
    ("networks", "least"),
    [
        (torchvision_subjects(["resnet18"], 10, 16), 0.8),
        (torchvision_subjects(["resnet50"], 10, 16), 0.8),
        (deepnets_subjects(DeepNets("test", image_size=16, width=8)[:10]), 0.9),
    ],
    ids=["resnet18", "resnet50", "test split"],
)
def test_accuracy(networks, least):
    assert evaluate(from_pretrained("digits"), networks, load_images("digits")).mean("top1") > least
