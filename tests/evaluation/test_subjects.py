import pytest
import torch
from safetensors.torch import save_model

from ghn_pyg.evaluation import deepnets_subjects, torchvision_subjects
from ghn_pyg.evaluation.subjects import trained_subject
from ghn_pyg.families.deepnets.dataset import DeepNets


def test_networks_of_a_split():
    split = DeepNets("wide", num_classes=7, image_size=16, width=8)
    subjects = deepnets_subjects(split[5:7])
    assert [(subject.name, subject.num_classes) for subject in subjects] == [("wide/5", 7), ("wide/6", 7)]
    network = subjects[1].build()
    graph = subjects[1].graph(network)
    assert graph.num_nodes == split[6].num_nodes
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert all(shapes[spec.name] == spec.shape for specs in graph.params for spec in specs)
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 7)


def test_networks_of_torchvision():
    large, small = (torchvision_subjects(["resnet18"], 7, size)[0] for size in (65, 64))
    network = small.build()
    assert (large.build().conv1.stride, network.conv1.stride) == ((2, 2), (1, 1))
    assert small.graph(network).param_names[-2:] == [["fc.weight"], ["fc.bias"]]
    assert (small.name, small.num_classes) == ("resnet18", 7)
    assert len(torchvision_subjects()) >= 80


def test_a_network_with_trained_weights(tmp_path):
    path = tmp_path / "resnet18.safetensors"
    trained = torchvision_subjects(["resnet18"], 7, 8)[0].build()
    save_model(trained, path)
    subject = trained_subject("resnet18", path, 7, 8)
    assert subject.build() is not subject.build()
    assert all(map(torch.equal, subject.build().parameters(), trained.parameters()))
    with pytest.raises(ValueError, match=r"holds no resnet50 for 7 .*: size mismatch for layer1\.0.* and 23 more$"):
        trained_subject("resnet50", path, 7, 8)
