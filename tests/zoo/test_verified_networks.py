"""Graphs of networks of the common libraries agree with what the networks really compute."""

import json

import pytest
import torch

from benchmarks.coverage import FAMILIES
from benchmarks.transformers_models import MODELS
from ghn_pyg import verify
from ghn_pyg.zoo import classification_models
from ghn_pyg.zoo.build import build_network, skeleton

# Small networks of families that differ most.
TORCHVISION = ["squeezenet1_0", "densenet121", "googlenet", "shufflenet_v2_x0_5", "mobilenet_v3_small", "swin_v2_t"]
TIMM = ["test_byobnet", "test_nfnet", "test_coatnet", "test_mambaout", "efficientvit_m0", "levit_128s", "coat_tiny",
        "crossvit_tiny_240", "resnest14d", "convit_tiny", "beit_base_patch16_224"]  # fmt: skip
LARGE = {"deepseek_vit_412m", "gemma4_vit_167m", "qwen3_vit_88m"}  # they agree too, and take a minute each
FIXED_SIZE = ("vit", "maxvit", "inception")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def assert_agrees(network, example_inputs=None):
    result = verify(network, example_inputs)
    assert result, str(result)
    assert result.not_exercised == ()


def of_torchvision(name):
    network = skeleton(name).network
    assert_agrees(network, None if name.startswith(FIXED_SIZE) else torch.empty(1, 3, 96, 96, device="meta"))


@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision(name):
    of_torchvision(name)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sorted({*classification_models()} - {*TORCHVISION}))
def test_all_classification_networks_of_torchvision(name):
    of_torchvision(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn", "mc3_18"])
def test_networks_of_torchvision_for_other_tasks(name):
    assert_agrees(build_network(name).network, torch.rand(1, 3, 5, 64, 64) if name == "mc3_18" else None)


def of_timm(name):
    pytest.importorskip("timm")
    assert_agrees(build_network(f"timm/{name}").network)


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm(name):
    of_timm(name)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sorted({*json.loads(FAMILIES.read_text()).values()} - {*TIMM} - LARGE))
def test_the_smallest_network_of_each_family_of_timm(name):
    of_timm(name)


@pytest.mark.parametrize(("make", "given"), MODELS.values(), ids=MODELS)
def test_models_of_transformers(make, given):
    pytest.importorskip("transformers")
    assert_agrees(make(), given)
