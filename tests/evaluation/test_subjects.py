import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from ghn_pyg.data import TensorImages
from ghn_pyg.evaluation import deepnets_subjects, measure, named_subject, torchvision_subjects
from ghn_pyg.evaluation.accuracy import Batches
from ghn_pyg.evaluation.subjects import trained_subject
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.models import recalibrate


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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("test/3", "Network"),
        ("darts", "Network"),
        ("PDARTS", "Network"),
        ("resnet18", "ResNet"),
        ("timm/vit_tiny_patch16_224", "VisionTransformer"),
        ("timm/resnet10t", "ResNet"),
        ("hf/mobilenet_v1", "MobileNetV1ForImageClassification"),
        ("module:tests.evaluation.test_subjects:small", "Sequential"),
    ],
)
def test_networks_by_name(name, kind):
    subject = named_subject(name, 7, 32, width=8)
    assert (subject.name, subject.num_classes) == (name, 7)
    network = subject.build().eval()
    assert type(network).__name__ == kind
    images, labels = torch.rand(3, 3, 32, 32), torch.arange(3)
    with torch.no_grad():
        outputs = network(images)
    assert (outputs if isinstance(outputs, torch.Tensor) else outputs[0]).shape == (3, 7)
    graph = subject.graph(network)
    assert {spec.name for specs in graph.params for spec in specs} <= {name for name, _ in network.named_parameters()}
    white = TensorImages(torch.zeros(3, 3, 32, 32, dtype=torch.uint8), labels, (0.5,), (0.5,))
    assert measure(network, Batches(white)).top1 in (0, pytest.approx(1 / 3))


def small():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7))


def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(75, 11))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test/500", "the split 'test' has networks 0 to 499, got 500"),
        ("resnet81", "torchvision has no classification network 'resnet81'"),
        ("timm/resnet81", "timm has no network 'resnet81'"),
        ("module:torch.nn:Flatten", r"expected logits of shape \(1, 11\) .*, got \(1, 3072\)"),
        ("module:tests.evaluation.test_subjects:fixed", "cannot take images of 32 pixels: .*mat1 and mat2 shapes"),
        (
            "module:tests.evaluation.test_subjects:small",
            r"expected logits of shape \(1, 11\) .*, got \(1, 7\)",
        ),
    ],
)
def test_networks_that_do_not_exist_or_have_other_classes(name, message):
    with pytest.raises(ValueError, match=message):
        named_subject(name, 11, 32).build()


def test_trained_weights_of_deepnets_networks(tmp_path):
    """Recalibration gives their norms statistics, and training may give them an auxiliary classifier."""
    network = named_subject("test/3", 7, 8, auxiliary=True).build()
    recalibrate(network, [torch.rand(5, 3, 8, 8)])
    save_model(network, path := tmp_path / "network.safetensors")
    loaded = trained_subject("test/3", path, 7, 8, auxiliary=True).build()
    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"holds no test/3 .*auxiliary_head") as caught:
        trained_subject("test/3", path, 7, 8)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("dtype", [torch.double, torch.bfloat16])
def test_networks_in_other_precisions(monkeypatch, dtype):
    monkeypatch.setattr(f"{__name__}.small", lambda: nn.Linear(3, 11, dtype=dtype))
    with pytest.raises(ValueError, match=f"expected parameters of torch.float32, got {dtype}"):
        named_subject("module:tests.evaluation.test_subjects:small", 11, 32).build()


def test_a_network_with_trained_weights(tmp_path):
    path = tmp_path / "resnet18.safetensors"
    trained = torchvision_subjects(["resnet18"], 7, 8)[0].build()
    save_model(trained, path)
    subject = trained_subject("resnet18", path, 7, 8)
    assert subject.build() is not subject.build()
    assert all(map(torch.equal, subject.build().parameters(), trained.parameters()))
    with pytest.raises(ValueError, match=r"holds no resnet50 for 7 .*: size mismatch for layer1\.0.* and 23 more$"):
        trained_subject("resnet50", path, 7, 8)
