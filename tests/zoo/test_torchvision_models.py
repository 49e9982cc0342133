import warnings

import pytest
import torch
import torchvision

from ghn_pyg import from_module
from ghn_pyg.zoo.torchvision_models import build, check_name, classification_models, models, skeleton


def shapes(network):
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_names():
    names = classification_models()
    assert len(names) >= 80
    assert names == sorted(names)
    assert {"alexnet", "maxvit_t", "regnet_y_128gf", "swin_v2_b", "vit_h_14"} <= set(names)
    others = {"fcn_resnet50", "maskrcnn_resnet50_fpn", "r3d_18", "quantized_resnet18", "raft_small"}
    assert not others & set(names)
    assert others | set(names) <= set(models())


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
def test_networks_with_auxiliary_heads_keep_them_and_do_not_warn(name, heads):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = build(name)
    assert all(getattr(network, head) is not None for head in heads)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", r" 'resnet5'; did you mean .*resnet50.*\?"),
        ("ResNet-50", r" 'ResNet-50'; did you mean resnet50 or "),
        ("ViT_B16", r"did you mean vit_b_16 or "),
        ("transformer", r" 'transformer'; expected one of its \d+; .* list them"),
    ],
)
@pytest.mark.parametrize("make", [build, skeleton, check_name])
def test_unknown_names(make, name, message):
    with pytest.raises(ValueError, match=message):
        make(name)


def test_what_needs_a_classifier_takes_no_other_network():
    with pytest.raises(ValueError, match="no classification network 'fcn_resnet50'"):
        check_name("fcn_resnet50")
    check_name("resnet50")


OTHERS = ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large", "lraspp_mobilenet_v3_large",
          "r3d_18", "raft_small", "quantized_mobilenet_v2"]  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_networks_for_other_tasks_are_built_without_a_download(name, monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shapes(skeleton(name)) == shapes(build(name))


@pytest.mark.parametrize("name", ["resnet18", "vit_b_32", "swin_t", "swin_v2_t", "regnet_y_400mf", "inception_v3"])
def test_a_skeleton_has_the_shapes_and_the_graph_of_the_network(name):
    network, bones = build(name), skeleton(name)
    assert shapes(bones) == shapes(network)
    graph, expected = from_module(bones), from_module(network)
    assert graph.params == expected.params
    assert graph.kept == expected.kept
    assert torch.equal(graph.node_type, expected.node_type)
    assert torch.equal(graph.edge_index, expected.edge_index)


@pytest.mark.parametrize("name", classification_models())
def test_skeletons_need_no_memory(name):
    small = sum(parameter.numel() for parameter in skeleton(name).parameters() if not parameter.is_meta)
    assert small < 100_000


def test_a_skeleton_leaves_tensors_made_elsewhere_alone():
    skeleton("alexnet")
    assert torch.empty(2).device.type == "cpu"
