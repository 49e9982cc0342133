"""Tests of predictions that the command line writes as shards."""

import os

import pytest
import torch

import ghn_pyg
from ghn_pyg import GHN, GHNConfig
from ghn_pyg.zoo.torchvision_models import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("ghn")
    GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2)).save_pretrained(path)
    return str(path)


def test_shards(run, folder, tmp_path):
    shards = tmp_path / "shards"
    options = ["--shards", shards, "--shard-size", "0.001", "--dtype", "bfloat16"]
    code, out, err = run("predict", "squeezenet1_1", "--ghn", folder, *options)
    assert (code, err) == (0, "")
    assert out[:1] == [f"squeezenet1_1 by {folder}"]
    assert out[2:4] == ["predicted 52 tensors, 1,235,496 parameters", "kept none"]
    assert out[5] == f"saved {shards}, 4 shards"
    assert len(os.listdir(shards)) == 5
    network = ghn_pyg.load_prediction(build("squeezenet1_1"), shards)
    expected = GHN.from_pretrained(folder).predict(build("squeezenet1_1"), dtype=torch.bfloat16)
    assert all(torch.equal(parameter, expected[name].float()) for name, parameter in network.named_parameters())


def test_a_file_or_shards(run, folder, tmp_path):
    code, _, err = run("predict", "alexnet", "--ghn", folder, "--out", tmp_path / "a.safetensors", "--shards", tmp_path)
    assert (code, err) == (2, "Error: give either --out or --shards\n")
    assert os.listdir(tmp_path) == []
