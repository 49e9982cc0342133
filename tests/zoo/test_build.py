import sys
import warnings

import pytest
import torch

from ghn_pyg import from_module
from ghn_pyg.zoo import build_network, classification_models, network_names, skeleton
from ghn_pyg.zoo.build import expand_patterns


def shapes(network):
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def elements_with_memory(network):
    return sum(parameter.numel() for parameter in network.parameters() if not parameter.is_meta)


@pytest.mark.parametrize(
    "source",
    ["resnet18", "vit_b_32", "swin_t", "swin_v2_t", "regnet_y_400mf", "inception_v3", "timm/test_vit"],
)
def test_a_skeleton_has_the_type_the_shapes_and_the_graph_of_the_network(source):
    network, bones = build_network(source).network, skeleton(source).network
    assert type(bones) is type(network)
    assert shapes(bones) == shapes(network)
    assert not any(parameter.is_meta for parameter in network.parameters())
    graph, expected = from_module(bones), from_module(network)
    assert graph.params == expected.params
    assert graph.kept == expected.kept
    assert torch.equal(graph.node_type, expected.node_type)
    assert torch.equal(graph.edge_index, expected.edge_index)


@pytest.mark.parametrize(
    "source",
    ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "r3d_18",
     "raft_small", "quantized_mobilenet_v2"],
)  # fmt: skip
def test_networks_for_other_tasks_are_built_without_a_download(source, monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shapes(skeleton(source).network) == shapes(build_network(source).network)


@pytest.mark.parametrize("name", classification_models())
def test_a_skeleton_needs_no_memory(name):
    assert elements_with_memory(skeleton(name).network) < 100_000


def test_a_language_model_needs_no_memory(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 2}')
    network = skeleton(f"hf/{tmp_path}:LlamaForCausalLM").network
    assert sum(parameter.numel() for parameter in network.parameters()) > 600_000_000
    assert elements_with_memory(network) < 50_000


@pytest.mark.parametrize("source", ["resnet18", "timm/test_vit"])
def test_options_reach_the_network(source):
    *_, bias = skeleton(source, num_classes=7).network.parameters()
    assert bias.shape == (7,)


def test_a_skeleton_calls_a_factory_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import torch\ndef make():\n    return torch.nn.Linear(3, 5), torch.ones(2, 3)\n"
    (tmp_path / "own_building.py").write_text(code)
    network, example_inputs = skeleton("module:own_building:make")
    assert network.weight.device.type == "cpu"
    assert example_inputs.tolist() == [[1] * 3] * 2
    assert build_network("squeezenet1_1").example_inputs is None


def test_an_unknown_library_is_refused():
    with pytest.raises(ValueError, match=r"unknown library 'tim'; did you mean timm\?"):
        network_names("tim")


def test_patterns_are_expanded():
    assert expand_patterns(["timm/test_vit?", "alexnet", "timm/test_vit3"]) == [
        "timm/test_vit2", "timm/test_vit3", "timm/test_vit4", "alexnet",
    ]  # fmt: skip
    assert expand_patterns(["hf/distilber?"]) == ["hf/distilbert"]
    assert expand_patterns(["module:a:b", "no_such_network"]) == ["module:a:b", "no_such_network"]
    assert not any("/" in name for name in expand_patterns(["*"]))
    with pytest.raises(ValueError, match=r"no network matches 'timm/no_such_\*'"):
        expand_patterns(["timm/no_such_*"])


@pytest.mark.parametrize(("library", "name"), [("timm", "timm/test_vit"), ("transformers", "hf/bert")])
def test_libraries_of_extras(library, name, monkeypatch):
    prefix = name.split("/")[0]
    assert name in network_names(prefix)
    monkeypatch.setitem(sys.modules, library, None)
    for call in (lambda: network_names(prefix), lambda: build_network(name)):
        with pytest.raises(ImportError, match=rf'pip install "ghn_pyg\[{library}\]"'):
            call()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("resnet5", r"torchvision has no network 'resnet5'; did you mean .*resnet50.*\?"),
        ("ResNet-50", r" 'ResNet-50'; did you mean resnet50 or "),
        ("ViT_B16", r"did you mean vit_b_16 or "),
        ("transformer", r" 'transformer'; `ghn-pyg models --networks` lists all names"),
        ("timm/test-vits", r"timm has no network 'test-vits'; did you mean timm/test_vit"),
        ("timm/xylophone", r"'xylophone'; `ghn-pyg models --networks` lists all names"),
        ("timm/test_vit.nothing", r"did you mean timm/test_vit"),
        ("timm/hf-hub:timm/resnet18.a1_in1k", "timm has no network"),
    ],
)
@pytest.mark.parametrize("function", [build_network, skeleton])
def test_unknown_names_are_refused_with_a_suggestion(function, source, message):
    with pytest.raises(ValueError, match=message):
        function(source)
