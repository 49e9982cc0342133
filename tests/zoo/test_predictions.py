"""Tests of networks of the common libraries: what becomes of their parameters, and that they run with predictions."""

import pytest
import torch

from benchmarks.coverage import check, example_inputs
from benchmarks.transformers_models import MODELS
from ghn_pyg import GHN, GHNConfig, Kept, from_module
from ghn_pyg.zoo.build import build_network

timm = pytest.importorskip("timm")
pytest.importorskip("transformers")

# Small networks, of families that differ most: blocks that are written out, tables, tokens, parts in training alone.
TIMM = ["test_byobnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_nfnet", "test_resnet", "test_vit",
        "test_coatnet", "efficientvit_m0", "fasternet_t0", "crossvit_tiny_240", "levit_128s", "repghostnet_050",
        "edgenext_xx_small", "xcit_nano_12_p8_224", "mvitv2_tiny", "hgnetv2_b0", "legacy_seresnet18"]  # fmt: skip
TORCHVISION = ["ssdlite320_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "raft_small", "mc3_18"]


@pytest.fixture(scope="module")
def ghn():
    torch.manual_seed(0)
    return GHN(GHNConfig(hidden_channels=16, max_channels=16, num_classes=1000, layers=1, heads=2)).eval()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm(name, ghn):
    found = check(name, timm.create_model(name), None, ghn)
    assert found["wrong"] == []
    assert found["layer_share"] == 1


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision(name, ghn):
    model = build_network(name).network
    inputs = example_inputs(name, model)
    if name == "mc3_18":  # a short video of a few pixels
        inputs = inputs[..., :5, :64, :64]
    assert check(name, model, inputs, ghn)["wrong"] == []


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("make", "given"), MODELS.values(), ids=MODELS)
def test_models_of_transformers(make, given, ghn):
    found = check("", make(), given, ghn)
    assert found["wrong"] == []
    assert found["layer_share"] == 1


@pytest.mark.parametrize(
    ("name", "options", "reasons"),
    [
        ("test_resnet", {}, {}),
        ("test_vit", {}, {"cls_token": Kept.TOKEN}),
        ("swinv2_tiny_window8_256", {"depths": (1, 1, 1, 1)}, {"logit_scale": Kept.LOGIT_SCALE}),
    ],
)
def test_kept_parameters_have_reasons(name, options, reasons):
    kept = from_module(timm.create_model(name, **options)).kept
    assert {parameter.split(".")[-1]: reason for parameter, reason in kept.items()} == reasons
