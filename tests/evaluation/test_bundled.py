"""What is said of the GHN that comes with the package."""

import pytest
from ghn_pyg.data import load_images

from ghn_pyg import from_pretrained
from ghn_pyg.evaluation.evaluate import evaluate
from ghn_pyg.evaluation.subjects import deepnets_subjects, torchvision_subjects
from ghn_pyg.families.deepnets.dataset import DeepNets


@pytest.fixture(scope="module")
def accuracy():
    ghn, images = from_pretrained("digits"), load_images("digits")
    return lambda subjects: evaluate(ghn, subjects, images).mean("top1")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_network_that_it_never_saw(accuracy, name):
    assert accuracy(torchvision_subjects([name], 10, 16)) > 0.8


def test_unseen_architectures(accuracy):
    assert accuracy(deepnets_subjects(DeepNets("test", image_size=16, width=8)[:10])) > 0.9
