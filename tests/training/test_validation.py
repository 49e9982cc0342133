import pytest
import torch

from ghn_pyg import GHN
from ghn_pyg.data import load_images
from ghn_pyg.evaluation import deepnets_subjects, evaluate
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.training.validation import validate, validation_networks
from tests.training.tiny import GHN3


@pytest.fixture(scope="module")
def images():
    return load_images("digits", image_size=8).hold_out(0.05)


def test_it_is_the_accuracy_of_an_evaluation(images):
    torch.manual_seed(3)
    ghn = GHN(GHN3).train()
    networks = validation_networks(images, 8)
    found = validate(ghn, networks, images)
    assert ghn.training
    report = evaluate(ghn.eval(), deepnets_subjects(DeepNets("val", image_size=8, width=8)[:4]), images)
    assert found == pytest.approx(report.mean("top1"), abs=2 / 72)  # to some images of 72: other statistics
    assert 0 < found < 0.5


def test_networks_that_memory_does_not_suffice_for_do_not_count(images):
    class Large(GHN):
        def predict(self, graph, **options):
            if graph.num_nodes > limit:
                raise torch.OutOfMemoryError
            return super().predict(graph, **options)

    torch.manual_seed(3)
    ghn, networks = Large(GHN3), validation_networks(images, 8)
    sizes = sorted(graph.num_nodes for graph in networks)
    limit = sizes[1]
    found = validate(ghn, networks, images)
    assert found == validate(ghn, [graph for graph in networks if graph.num_nodes <= limit], images)
    limit = 0
    assert validate(ghn, networks, images) == 0
