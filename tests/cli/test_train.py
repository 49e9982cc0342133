import csv
import dataclasses
import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file

from ghn_pyg import GHN, GHNConfig, from_pretrained
from ghn_pyg import data as images_module
from ghn_pyg.data import Images, TensorImages, load_images
from ghn_pyg.evaluation import report as report_module
from ghn_pyg.evaluation.subjects import torchvision_subjects
from ghn_pyg.finetuning import train_network as fit
from ghn_pyg.models.published_norms import published_norm
from ghn_pyg.training import image_batches as streams_module
from ghn_pyg.training import run as run_module
from ghn_pyg.training.config import recipe_names
from ghn_pyg.training.logs import read_log
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
    assert out[-1] == f"kept nothing in {tmp_path}/run, as by --fast-dev-run"
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_interrupted_says_how_it_goes_on(run, recipe, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "train", interrupted)
    code, _, err = run("train", recipe, "--device", "cpu", "--out", tmp_path / "run")
    assert code == 130
    assert f"Stopped; the same command goes on from the last checkpoint in {tmp_path}/run." in err


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
    assert {(report["settings"]["source"], report["settings"]["width"]) for report in found.values()} == {(str(ghn), 8)}
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


def few_pictures(name, classes):
    """Three grey images of 224×224 pixels."""
    grey = TensorImages(torch.full((3, 3, 224, 224), 99, dtype=torch.uint8), torch.arange(3), (0.5,) * 3, (0.25,) * 3)
    return Images(name, grey, grey, classes, 224, (0.5,) * 3, (0.25,) * 3)


def test_norms_of_published_ghns_are_compared_on_imagenet(run, tmp_path, monkeypatch):
    torch.manual_seed(3)
    small = GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2, num_classes=1000)
    GHN(small).save_pretrained(tmp_path / "ghn3tm8")
    monkeypatch.setattr(images_module, "load_images", lambda name, *_, **__: few_pictures(name, 1000))
    _, out, _ = run("eval", tmp_path / "ghn3tm8", "--network", "shufflenet_v2_x0_5")
    (line,) = [line for line in out if line.startswith("norms: ")]
    found, published = line.removeprefix("norms: shufflenet_v2_x0_5 ").split(", published ")
    assert float(published) == pytest.approx(published_norm("shufflenet_v2_x0_5", "ghn3tm8"), abs=1e-3)
    monkeypatch.setattr(report_module, "published_norm", lambda name, ghn: float(found))
    _, out, _ = run("eval", tmp_path / "ghn3tm8", "--network", "shufflenet_v2_x0_5")
    assert "norms: as published" in out


@pytest.mark.parametrize("large", [True, False])
def test_norms_of_other_networks_are_not_compared(run, ghn, tmp_path, monkeypatch, large):
    """With other classes, or on small images, networks have other parameters than the published ones."""
    shutil.copytree(ghn, tmp_path / "ghn3tm8")
    if large:
        monkeypatch.setattr(images_module, "load_images", lambda name, *_, **__: few_pictures(name, 10))
    code, out, _ = run("eval", tmp_path / "ghn3tm8", "--network", "shufflenet_v2_x0_5")
    assert code == 0
    assert not any(line.startswith("norms: ") for line in out)


def test_published_noise(run, ghn, tmp_path, monkeypatch):
    options = ("eval", ghn, "--split", "val", "--count", 1, "--width", 8, "--noise")
    assert "no noise is published for digits, only for cifar10, cifar100" in failed(run(*options, "published"))
    real = images_module.load_images
    monkeypatch.setattr(
        images_module, "load_images", lambda *_, **__: dataclasses.replace(real("digits", image_size=8), name="CIFAR10")
    )
    assert run(*options, "published", "--out", tmp_path / "found.json")[0] == 0
    assert json.loads((tmp_path / "found.json").read_text())["val"]["predicted"]["settings"]["noise"] == 0.08


def test_a_checkpoint_of_a_run_is_evaluated(run, recipe, tmp_path):
    folder = tmp_path / "run"
    options = ("--steps", 2, "--device", "cpu", "-s", "ema=0.5")
    assert run("train", recipe, "--out", folder, *options)[0] == 0
    found = []
    for name in ("checkpoints/step-000000002.pt", "ghn"):
        path = tmp_path / "found.json"
        what = ("--split", "val", "--count", 1, "--width", 8, "--image-size", 8)
        assert run("eval", folder / name, *what, "--out", path)[0] == 0
        found.append(json.loads(path.read_text())["val"]["predicted"]["rows"][0]["total_norm"])
    assert found[0] == found[1] > 0


def test_image_data_is_asked_for_as_the_options_say(run, ghn, recipe, monkeypatch):
    """SVHN does not tell its classes; it is downloaded if that is wanted."""
    asked = []

    def refuse(name, folder, **options):
        asked.append((name, options.get("num_classes"), options["download"]))
        raise images_module.ImagesError("none here")

    monkeypatch.setattr(images_module, "load_images", refuse)
    monkeypatch.setattr(streams_module, "load_images", refuse)
    data = ("--images", "svhn", "--download")
    failed(run("eval", ghn, *data))
    failed(run("rank", ghn, *data))
    failed(run("finetune", "resnet18", "--ghn", ghn, *data))
    failed(run("finetune", "resnet18", "--ghn", ghn, *data, "--keep-classifier", "--num-classes", 7))
    failed(run("eval", ghn, "--images", "svhn", "--num-classes", 10))
    failed(run("train", recipe, "--fast-dev-run", "--device", "cpu", "-s", "images=svhn", "-s", "download=true"))
    assert asked == [
        ("svhn", None, True), ("svhn", None, True), ("svhn", None, True), ("svhn", 7, True), ("svhn", 10, False),
        ("svhn", 10, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", "sgd"), "--compare expected random, sgd:N or finetuned:N with N epochs, got 'sgd'"),
        (("--split", "tests"), "unknown split 'tests'; did you mean test"),
        (("--network", "resnet19"), "did you mean resnet18"),
        (("--images", "cifar10", "--data", "/nowhere"), "in the folder /nowhere"),
        (("--out", "x.txt"), "expected a name that ends in .json, .csv"),
        (("--noise", "loud"), "--noise expected a number of at least 0, or published, got 'loud'"),
        (("--noise", "-1"), "--noise expected a number of at least 0, or published, got '-1'"),
        (("--statistics", "running", "--network", "resnet18"), "networks that were not trained have no running"),
        (("--statistics", "recalibrated", "--count", 1), "networks of DeepNets-1M keep no statistics in their batch"),
        (("--weights", "x.safetensors", "--network", "resnet18"), "without a GHN, --split or --compare"),
    ],
)
def test_wrong_evaluation(run, ghn, arguments, message):
    assert message in failed(run("eval", ghn, *arguments))


def test_what_is_to_be_evaluated_is_asked_for(run, tmp_path):
    assert "which GHN predicts the parameters?" in failed(run("eval"))
    path = tmp_path / "none.safetensors"
    message = failed(run("eval", "--weights", path, "--network", "resnet18"))
    assert "none.safetensors holds no resnet18 for 10 classes and images of 16 pixels" in message
    assert "name it by --network" in failed(run("eval", "--weights", path))


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
    assert network.conv1[1].num_batches_tracked == 10  # recalibrated
    found = []
    for statistics in ("batch", "running"):
        results = tmp_path / "found.json"
        what = ("--weights", path, "--network", name, "--image-size", 8, "--statistics", statistics)
        code, out, _ = run("eval", *what, "--out", results)
        assert code == 0
        assert out[0] == f"{path} on 355 test images of digits"
        report = json.loads(results.read_text())["torchvision"]["trained"]
        assert report["settings"]["parameters"] == "trained"
        assert report["settings"]["source"] == str(path)
        (row,) = report["rows"]
        found.append(row["top1"])
    network.eval()
    images, labels = load_images("digits", image_size=8).test.batch(range(355))
    with torch.no_grad():
        assert found[1] == pytest.approx((network(images).argmax(1) == labels).float().mean().item(), abs=0.003)
    assert found[0] != found[1]
    message = failed(run("eval", "--weights", path, "--network", "resnet18"))
    assert "holds no resnet18 for 10 classes and images of 16 pixels: size mismatch for fc.weight: " in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet19",), "did you mean resnet18"),
        (("resnet18", "--recipe", "sdg"), "unknown recipe 'sdg', expected one of sgd, adamw, timm; did you mean sgd"),
        (("resnet18", "--recipe", "timm"), "batch_size must not exceed the 1442 training images"),
        (("resnet18", "--out", "x.pt"), "expected a name that ends in .safetensors"),
        (("vit_b_32", "--image-size", 96), "vit_b_32 cannot take images of 96 pixels: Wrong image height!"),
    ],
)
def test_wrong_finetuning(run, ghn, arguments, message):
    assert message in failed(run("finetune", *arguments, "--ghn", ghn))


def test_a_full_disk_does_not_hide_what_training_gave(run, ghn, tmp_path, full_disk):
    path = tmp_path / "network.safetensors"
    options = ("--ghn", ghn, "--image-size", 8, "--compare", "--out", path)
    code, out, err = run("finetune", "shufflenet_v2_x0_5", *options)
    assert code == 2
    assert sum(line.startswith(("predicted ", "random ")) for line in out) == 2
    assert "cannot save the network: " in err
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_read(run, ghn, tmp_path):
    for part in ("train", "val"):
        for name in map(str, range(10)):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "picture.png").write_bytes(b"damaged")
    options = ("--ghn", ghn, "--images", tmp_path, "--image-size", 8, "--batch-size", 2)
    assert "cannot identify image file" in failed(run("finetune", "shufflenet_v2_x0_5", *options))


def test_nothing_that_runs_is_no_success(run, ghn):
    code, out, _ = run("eval", ghn, "--network", "vit_b_16", "--image-size", 8)
    assert code == 2
    assert any("has no version for small inputs" in line for line in out)


@pytest.mark.parametrize("which", ["predicted", "random"])
def test_a_network_that_diverges(run, ghn, tmp_path, monkeypatch, which):
    """The other one is trained and kept all the same; the command fails if its own purpose did."""
    real, calls = fit.fit, []

    def diverging(network, *arguments, **options):
        calls.append(network)
        if ("predicted", "random")[len(calls) - 1] == which:
            raise FloatingPointError("losses are not finite in epoch 1")
        return real(network, *arguments, **options)

    monkeypatch.setattr(fit, "fit", diverging)
    path = tmp_path / "network.safetensors"
    options = ("--ghn", ghn, "--image-size", 8, "--compare", "--out", path)
    code, out, _ = run("finetune", "shufflenet_v2_x0_5", *options)
    assert code == (2 if which == "predicted" else 0)
    assert f"{which} failed losses are not finite in epoch 1" in out
    assert (f"saved {path}" in out) == path.exists() == (which == "random")


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
