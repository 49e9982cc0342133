import csv
import json
import logging

import pytest
import torch
from safetensors.torch import load_file

from ghn_pyg import GHN, GHNConfig, from_pretrained
from ghn_pyg.evaluation import report as report_module
from ghn_pyg.evaluation.subjects import torchvision_subjects
from ghn_pyg.finetuning import fit
from ghn_pyg.models.published import published_norm
from ghn_pyg.training.logs import read_log
from ghn_pyg.training.recipes import recipe_names
from tests.cli.outcomes import failed

logging.getLogger("lightning_fabric").setLevel(logging.ERROR)

TINY = """
ghn: {hidden_channels: 8, max_channels: 8, max_kernel_size: 5, num_classes: 10, layers: 1, heads: 2}
image_size: 8
meta_batch: 1
batch_size: 16
epochs: 10
warmup_epochs: 0
widths: {widths: [8], hidden: [16]}
curriculum: 1.0
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def ghn(tmp_path_factory):
    """An untrained GHN for ten classes."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("ghn")
    GHN(
        GHNConfig(hidden_channels=8, max_channels=8, max_kernel_size=5, layers=1, heads=2, num_classes=10)
    ).save_pretrained(folder)
    return folder


# train


def test_train_and_go_on(run, recipe, tmp_path):
    folder = tmp_path / "run"
    options = ("train", recipe, "--out", folder, "--device", "cpu", "-s", "seed=5")
    code, out, _ = run(*options, "--steps", 2)
    assert code == 0
    assert out[1] == "steps 2"
    assert out[-1] == f"saved {folder}/ghn, the log {folder}/log.csv"
    code, out, _ = run(*options, "--steps", 3)
    assert (code, out[1]) == (0, "steps 3")
    assert [row["step"] for row in read_log(folder / "log.csv")] == [0, 1, 2]
    assert json.loads((folder / "train.json").read_text())["seed"] == 5
    assert from_pretrained(folder / "ghn").config.hidden_channels == 8
    code, out, _ = run(*options, "--steps", 3)
    assert (code, out[1]) == (0, "steps none were left to take")
    assert "differs in seed" in failed(run(*options[:-1], "seed=7"))


def test_a_fast_run_keeps_nothing(run, recipe, tmp_path):
    code, out, _ = run("train", recipe, "--fast-dev-run", "--device", "cpu", "--out", tmp_path / "run")
    assert (code, out[1]) == (0, "steps 3")
    assert not any("saved" in line for line in out)
    assert not (tmp_path / "run").exists()


def test_recipes_are_listed(run):
    assert run("train", "--list") == (0, recipe_names(), "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Name a recipe (see --list) or a YAML file"),
        (("digits",), "Name a folder by --out, or try it with --fast-dev-run"),
        (("digit", "--fast-dev-run"), "no recipe 'digit'; did you mean digits"),
        (("digits", "--fast-dev-run", "-s", "epoch=3"), "has no field 'epoch'; did you mean epochs"),
        (("digits", "--fast-dev-run", "-s", "ghn.num_classes=7"), "for 7 classes and digits has 10"),
        (("ghn3-t-cifar10", "--fast-dev-run", "-s", "folder=/nowhere", "-s", "precision=32-true"), "/nowhere"),
        (("digits", "--fast-dev-run", "--device", "cud"), "there is no device 'cud'"),
    ],
)
def test_wrong_training(run, arguments, message):
    assert message in failed(run("train", *arguments))


# eval


def test_eval_compares(run, ghn, tmp_path):
    path = tmp_path / "found.json"
    what = ("--split", "val", "--count", 2, "--width", 8, "--image-size", 8)
    options = (*what, "--compare", "random", "--compare", "sgd:1", "--compare", "finetuned:1")
    code, out, _ = run("eval", ghn, *options, "--out", path)
    assert code == 0
    assert out[0] == f"{ghn} on 355 test images of digits"
    found = json.loads(path.read_text())["val"]
    assert list(found) == ["predicted", "random", "sgd:1", "finetuned:1"]
    assert [len(report["rows"]) for report in found.values()] == [2, 2, 2, 2]
    settings = [(report["settings"]["parameters"], report["settings"]["training"]) for report in found.values()]
    assert [kind for kind, _ in settings] == ["predicted", "initial", "initial", "predicted"]
    assert [training and training["epochs"] for _, training in settings] == [None, None, 1, 1]
    lines = [line for line in out if "100.0%" in line]
    for line, (name, report) in zip(lines, found.items(), strict=True):
        assert f"{name} 2 100.0% {report['top1_mean']:.2%} {report['top1_std']:.2%}" in line
    assert found["sgd:1"]["top1_mean"] > found["random"]["top1_mean"]


def test_eval_of_torchvision_networks_as_a_table(run, ghn, tmp_path):
    path = tmp_path / "found.csv"
    code, out, _ = run("eval", ghn, "--network", "shufflenet_v2_x0_5", "--out", path)
    assert code == 0
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert (row["networks"], row["method"], row["name"]) == ("torchvision", "predicted", "shufflenet_v2_x0_5")
    assert f"shufflenet_v2_x0_5 {float(row['top1']):.2%}" in out
    assert any(line.startswith("torchvision predicted 1 100.0%") and "nan" not in line for line in out)


def test_norms_of_published_ghns_are_compared(run, tmp_path, monkeypatch):
    torch.manual_seed(3)
    small = GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2, num_classes=10)
    GHN(small).save_pretrained(tmp_path / "ghn3tm8")
    _, out, _ = run("eval", tmp_path / "ghn3tm8", "--network", "shufflenet_v2_x0_5")
    (line,) = [line for line in out if line.startswith("norms: ")]
    found, published = line.removeprefix("norms: shufflenet_v2_x0_5 ").split(", published ")
    assert float(published) == pytest.approx(published_norm("shufflenet_v2_x0_5", "ghn3tm8"), abs=1e-3)
    monkeypatch.setattr(report_module, "published_norm", lambda name, ghn: float(found))
    _, out, _ = run("eval", tmp_path / "ghn3tm8", "--network", "shufflenet_v2_x0_5")
    assert "norms: as published" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", "sgd"), "--compare expected random, sgd:N or finetuned:N with N epochs, got 'sgd'"),
        (("--split", "tests"), "unknown split 'tests'; did you mean 'test'"),
        (("--network", "resnet19"), "did you mean resnet18"),
        (("--images", "cifar10", "--data", "/nowhere"), "cannot be read in the folder /nowhere"),
        (("--out", "x.txt"), "expected a name that ends in .json, .csv"),
    ],
)
def test_wrong_evaluation(run, ghn, arguments, message):
    assert message in failed(run("eval", ghn, *arguments))


# finetune and demo


def test_finetune(run, ghn, tmp_path):
    path = tmp_path / "network.safetensors"
    name = "shufflenet_v2_x0_5"
    code, out, _ = run("finetune", name, "--ghn", ghn, "--image-size", 8, "--epochs", 2, "--compare", "--out", path)
    assert code == 0
    assert "parameters before after 1 epoch after 2 epochs seconds" in out
    assert sum(line.startswith(("predicted ", "random ")) for line in out) == 2
    network = torchvision_subjects([name], 10, 8)[0].build()
    network.load_state_dict(load_file(path))
    assert network.conv1[1].num_batches_tracked == 44


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet19",), "did you mean resnet18"),
        (("resnet18", "--recipe", "sdg"), "unknown recipe 'sdg', expected one of sgd, adamw, timm; did you mean sgd"),
        (("resnet18", "--recipe", "timm"), "batch_size must not exceed the 1442 training images"),
        (("resnet18", "--out", "x.pt"), "expected a name that ends in .safetensors"),
    ],
)
def test_wrong_finetuning(run, ghn, arguments, message):
    assert message in failed(run("finetune", *arguments, "--ghn", ghn))


def test_a_trained_network_is_kept_when_the_other_diverges(run, ghn, tmp_path, monkeypatch):
    real, calls = fit.fit, []

    def diverging(network, *arguments, **options):
        calls.append(network)
        if len(calls) == 2:
            raise FloatingPointError("losses are not finite in epoch 1")
        return real(network, *arguments, **options)

    monkeypatch.setattr(fit, "fit", diverging)
    path = tmp_path / "network.safetensors"
    options = ("--ghn", ghn, "--image-size", 8, "--compare", "--out", path)
    code, out, _ = run("finetune", "shufflenet_v2_x0_5", *options)
    assert code == 0
    assert "random failed losses are not finite in epoch 1" in out
    assert f"saved {path}" in out
    assert path.exists()


def test_other_classes(run, tmp_path):
    GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2, num_classes=7)).save_pretrained(tmp_path)
    assert "add --keep-classifier to predict all but the last layer" in failed(
        run("finetune", "resnet18", "--ghn", tmp_path)
    )
    assert "the GHN is for 7 classes and digits has 10" in failed(run("eval", tmp_path, "--count", 1))


def test_demo(run, ghn, tmp_path):
    path = tmp_path / "demo.png"
    code, out, _ = run("demo", "--ghn", ghn, "--network", "shufflenet_v2_x0_5", "--out", path)
    assert code == 0
    assert out[0] == f"shufflenet_v2_x0_5 on 355 held-out digits, by {ghn}"
    assert [line.split(" ")[0] for line in out[4:7]] == ["random", "predicted", "1"]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_wrong_demo(run, ghn):
    message = failed(run("demo", "--ghn", ghn, "--network", "vit_b_16"))
    assert "VisionTransformer has no version for small inputs" in message
