import warnings

import pytest
import torchvision

from ghn_pyg.zoo import classification_models
from ghn_pyg.zoo.torchvision_models import build, check_name, names


def test_names():
    classifiers = classification_models()
    assert len(classifiers) >= 80
    assert classifiers == sorted(classifiers)
    others = {"fcn_resnet50", "maskrcnn_resnet50_fpn", "r3d_18", "quantized_resnet18", "raft_small"}
    assert not others & set(classifiers)
    assert others | set(classifiers) <= set(names())


def test_build():
    network = build("resnet18", num_classes=7)
    assert type(network) is torchvision.models.ResNet
    assert network.fc.weight.shape == (7, 512)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_180_103


def test_parameters_that_a_ghn_keeps_have_their_initial_values():
    scale = build("convnext_tiny").features[1][0].layer_scale
    assert scale.shape == (96, 1, 1)
    assert (scale == 1e-6).all()
    table = build("swin_t").features[1][0].attn.relative_position_bias_table
    assert 0.018 < table.std() < 0.022


@pytest.mark.parametrize(("name", "heads"), [("googlenet", ["aux1", "aux2"]), ("inception_v3", ["AuxLogits"])])
def test_auxiliary_heads_are_built_without_a_warning(name, heads):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = build(name)
    assert all(getattr(network, head) is not None for head in heads)


def test_networks_for_other_tasks_are_no_classification_networks():
    with pytest.raises(ValueError, match="no classification network 'fcn_resnet50'"):
        check_name("fcn_resnet50")
