import json
import os
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import ghn_pyg
from ghn_pyg import GHN
from ghn_pyg.models.checkpoints import locate
from ghn_pyg.zoo.torchvision_models import build
from tests.cli.outcomes import failed


def test_predict(run, ghn, tmp_path):
    path = tmp_path / "resnet18.safetensors"
    code, out, err = run("predict", "resnet18", "--ghn", ghn, "--out", path)
    assert (code, err) == (0, "")
    assert out[:4] == [
        f"resnet18 by {ghn}",
        "graph 53 nodes, 60 edges",
        "predicted 62 tensors, 11,689,512 parameters",
        "kept none",
    ]
    prediction = GHN.from_pretrained(ghn).predict(build("resnet18"))
    norm = torch.cat([tensor.flatten() for tensor in prediction.values()]).double().norm()
    assert out[4] == f"total norm {norm:.4f}"
    assert out[5].startswith("time graph 0.")
    assert out[6] == f"saved {path}, 46.8 MB"

    saved = load_file(path)
    assert set(saved) == {name for name, _ in build("resnet18").named_parameters()}
    assert all(torch.equal(saved[name], tensor) for name, tensor in prediction.items())
    network = ghn_pyg.load_prediction(build("resnet18"), saved)
    assert torch.equal(network.fc.weight, prediction["fc.weight"])
    with safe_open(path, framework="pt") as file:
        metadata = {"format": "pt", "architecture": "resnet18", "ghn": ghn, "kept": "{}", "seed": "0"}
        assert file.metadata() == {**metadata, "ghn_pyg": ghn_pyg.__version__}
    assert os.listdir(tmp_path) == [path.name]


def test_predict_without_the_classifier_in_half_precision(run, ghn, tmp_path):
    path = tmp_path / "half.safetensors"
    options = ["--out", path, "--keep-classifier", "--dtype", "bfloat16", "--seed", 5]
    code, out, _ = run("predict", "squeezenet1_1", "--ghn", ghn, *options)
    assert code == 0
    assert out[2] == "predicted 50 tensors, 722,496 parameters"
    assert out[3].startswith("kept 2 tensors, 513,000 parameters: it belongs to the classification layer")
    saved = load_file(path)
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert sorted(json.loads(metadata["kept"])) == ["classifier.1.bias", "classifier.1.weight"]
    assert not set(json.loads(metadata["kept"])) & set(saved)
    assert metadata["seed"] == "5"


def test_kept_parameters_are_grouped_by_reason(run, ghn):
    _, out, _ = run("predict", "convnext_tiny", "--ghn", ghn, "--keep-classifier")
    scales, classifier = [line for line in out if line.startswith("kept")]
    assert scales.startswith("kept 18 tensors, 6,624 parameters: ")
    assert scales.endswith("(features.1.0.layer_scale, features.1.1.layer_scale, features.1.2.layer_scale and 15 more)")
    assert classifier.startswith("kept 2 tensors, 769,000 parameters: ")


def test_predictions_follow_the_seed(run, ghn, tmp_path):
    rows = []
    for seed in ((), ("--seed", 0), ("--seed", 1)):
        path = tmp_path / "vit.safetensors"
        assert run("predict", "vit_b_32", "--ghn", ghn, "--out", path, *seed)[0] == 0
        rows.append(load_file(path)["encoder.pos_embedding"][0, 0])
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_predictions_on_a_gpu(device, run, ghn, tmp_path):
    path = tmp_path / "x.safetensors"
    assert run("predict", "squeezenet1_1", "--ghn", ghn, "--out", path, "--device", device)[0] == 0
    prediction = GHN.from_pretrained(ghn).predict(build("squeezenet1_1"))
    torch.testing.assert_close(load_file(path), dict(prediction), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["ghn3tm8", "ghn3tm8.pt"])
def test_published_norms_are_those_of_published_names(name, run, ghn, monkeypatch):
    monkeypatch.setattr(locate, "resolve", lambda _: ghn)
    line = run("predict", "squeezenet1_1", "--ghn", name)[1][4]
    norm, percent = re.fullmatch(r"total norm ([\d.]+), published 69\.3108 \(([+-][\d.]+)%\)", line).groups()
    assert float(percent) == pytest.approx(100 * (float(norm) / 69.3108 - 1), abs=3e-4)
    assert "published" not in run("predict", "squeezenet1_1", "--ghn", name, "--keep-classifier")[1][4]
    assert "published" not in run("predict", "swin_v2_t", "--ghn", name)[1][4]


def test_a_local_file_with_a_published_name_has_no_published_norm(run, ghn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(ghn, "ghn3tm8")
    assert "published" not in run("predict", "squeezenet1_1", "--ghn", "ghn3tm8")[1][4]


def test_shards(run, ghn, tmp_path):
    shards = tmp_path / "shards"
    options = ["--shards", shards, "--shard-size", "0.001", "--dtype", "bfloat16"]
    code, out, err = run("predict", "squeezenet1_1", "--ghn", ghn, *options)
    assert (code, err) == (0, "")
    assert out[:1] == [f"squeezenet1_1 by {ghn}"]
    assert out[2:4] == ["predicted 52 tensors, 1,235,496 parameters", "kept none"]
    assert out[5] == f"saved {shards}, 4 shards"
    assert len(os.listdir(shards)) == 5
    network = ghn_pyg.load_prediction(build("squeezenet1_1"), shards)
    expected = GHN.from_pretrained(ghn).predict(build("squeezenet1_1"), dtype=torch.bfloat16)
    assert all(torch.equal(parameter, expected[name].float()) for name, parameter in network.named_parameters())


def test_a_network_that_is_larger_than_memory(run, ghn, tmp_path, monkeypatch):
    lines = ("import torch", "def build():", "    with torch.device('meta'):")
    layers = "[torch.nn.Flatten(), torch.nn.Linear(3 * 224**2, 1 << 24), torch.nn.ReLU(), torch.nn.Linear(1 << 24, 7)]"
    (tmp_path / "large_network.py").write_text("\n".join([*lines, f"        return torch.nn.Sequential(*{layers})"]))
    monkeypatch.syspath_prepend(tmp_path)
    error = failed(run("predict", "module:large_network:build", "--ghn", ghn, "--keep-classifier"))
    assert re.search(r"the prediction needs 10,[\d,.]+ GB, .* GB are free; predict to disk .*--shards", error)
