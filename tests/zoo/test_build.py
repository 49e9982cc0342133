import json

import pytest
import torch

from ghn_pyg import coverage
from ghn_pyg.zoo.build import Built, build_network, expand, network_names, skeleton
from tests.zoo.test_transformers_models import TINY


def shapes(network):
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.fixture
def bert(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **TINY["bert"]}))
    return f"hf/{tmp_path}"


@pytest.mark.parametrize("source", ["squeezenet1_1", "timm/test_vit", "bert"])
def test_a_skeleton_has_the_shapes_of_the_network_and_no_memory(source, bert):
    source = bert if source == "bert" else source
    network, bones = build_network(source), skeleton(source)
    assert network.example_inputs is bones.example_inputs is None
    assert shapes(bones.network) == shapes(network.network)
    assert type(bones.network) is type(network.network)
    assert not any(parameter.is_meta for parameter in network.network.parameters())
    assert sum(p.numel() for p in bones.network.parameters() if not p.is_meta) < 1000


def test_a_large_language_model_is_a_skeleton_in_no_memory(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 2}')
    network = skeleton(f"hf/{tmp_path}:LlamaForCausalLM").network
    assert sum(parameter.numel() for parameter in network.parameters()) > 600_000_000
    assert sum(parameter.numel() for parameter in network.parameters() if not parameter.is_meta) < 50_000


def test_a_skeleton_of_transformers_is_covered(bert):
    ids = torch.zeros(1, 7, dtype=torch.long)
    found = coverage(skeleton(bert).network, {"input_ids": ids})
    assert found.tensors == len(list(build_network(bert).network.parameters()))


def test_functions_are_called_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import torch\ndef make():\n    return torch.nn.Linear(3, 5), torch.ones(2, 3)\n"
    (tmp_path / "own_building.py").write_text(code)
    built = skeleton("module:own_building:make")
    assert isinstance(built, Built)
    assert built.network.weight.device.type == "cpu"
    assert built.example_inputs.tolist() == [[1] * 3] * 2


def test_names_are_sources():
    assert network_names("torchvision")[0] == "alexnet"
    assert "timm/test_vit" in network_names("timm")
    assert "hf/bert" in network_names("hf")


def test_patterns():
    assert expand(["timm/test_vit?", "alexnet", "timm/test_vit3"]) == [
        "timm/test_vit2", "timm/test_vit3", "timm/test_vit4", "alexnet",
    ]  # fmt: skip
    assert expand(["hf/distilber?"]) == ["hf/distilbert"]
    assert expand(["module:a:b", "no_such_network"]) == ["module:a:b", "no_such_network"]
    assert not any("/" in name for name in expand(["*"]))
    with pytest.raises(ValueError, match=r"no network matches 'timm/no_such_\*'"):
        expand(["timm/no_such_*"])
