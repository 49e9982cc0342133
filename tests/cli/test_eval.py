import csv
import dataclasses
import json
import shutil

import pytest
import torch

from ghn_pyg.data import load as load_module
from ghn_pyg.data.images import Images, ImagesError, TensorImages
from ghn_pyg.evaluation import report as report_module
from ghn_pyg.models.published_norms import published_norm
from ghn_pyg.training import image_batches as streams_module
from ghn_pyg.utils.warn_once import warn_once
from tests.cli.outcomes import failed


def test_predicted_random_and_trained_parameters_are_compared(run, digits_ghn, tmp_path):
    path = tmp_path / "found.json"
    what = ("--split", "val", "--count", 2, "--width", 8, "--image-size", 8)
    options = (*what, "--compare", "random", "--compare", "sgd:1", "--compare", "finetuned:1")
    options = (*options, "--train-batch-size", 72, "--learning-rate", 0.0625)
    code, out, _ = run("eval", digits_ghn, *options, "--out", path)
    assert code == 0
    assert out[0] == f"{digits_ghn} on 355 test images of digits"
    found = json.loads(path.read_text())["val"]
    assert list(found) == ["predicted", "random", "sgd:1", "finetuned:1"]
    assert [len(report["rows"]) for report in found.values()] == [2, 2, 2, 2]
    settings = [(report["settings"]["parameters"], report["settings"]["training"]) for report in found.values()]
    assert [kind for kind, _ in settings] == ["predicted", "initial", "initial", "predicted"]
    assert [training and training["epochs"] for _, training in settings] == [None, None, 1, 1]
    assert [(training["batch_size"], training["learning_rate"]) for _, training in settings[2:]] == [(72, 0.0625)] * 2
    assert {report["settings"]["source"] for report in found.values()} == {digits_ghn}
    lines = [line for line in out if "100.0%" in line]
    for line, (name, report) in zip(lines, found.items(), strict=True):
        assert f"{name} 2 100.0% {report['top1_mean']:.2%} {report['top1_std']:.2%}" in line
    assert found["sgd:1"]["top1_mean"] > found["random"]["top1_mean"]


def test_torchvision_networks_are_listed_and_saved(run, digits_ghn, tmp_path):
    path = tmp_path / "found.csv"
    code, out, _ = run("eval", digits_ghn, "--network", "shufflenet_v2_x0_5", "--out", path)
    assert code == 0
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert (row["networks"], row["method"], row["name"]) == ("torchvision", "predicted", "shufflenet_v2_x0_5")
    assert f"shufflenet_v2_x0_5 {float(row['top1']):.2%}" in out
    assert any(line.startswith("torchvision predicted 1 100.0%") and "nan" not in line for line in out)


def few_pictures(name, classes):
    """Three grey images of 224×224 pixels."""
    grey = TensorImages(torch.full((3, 3, 224, 224), 99, dtype=torch.uint8), torch.arange(3), (0.5,) * 3, (0.25,) * 3)
    return Images(name, grey, grey, classes, 224, (0.5,) * 3, (0.25,) * 3)


def test_norms_of_published_ghns_are_compared_on_imagenet(run, ghn, tmp_path, monkeypatch):
    shutil.copytree(ghn, tmp_path / "ghn3tm8")
    monkeypatch.setattr(load_module, "load_images", lambda name, *_, **__: few_pictures(name, 1000))
    _, out, _ = run("eval", tmp_path / "ghn3tm8", "--network", "shufflenet_v2_x0_5")
    (line,) = [line for line in out if line.startswith("norms: ")]
    found, published = line.removeprefix("norms: shufflenet_v2_x0_5 ").split(", published ")
    assert float(published) == pytest.approx(published_norm("shufflenet_v2_x0_5", "ghn3tm8"), abs=1e-3)
    monkeypatch.setattr(report_module, "published_norm", lambda name, ghn: float(found))
    _, out, _ = run("eval", tmp_path / "ghn3tm8", "--network", "shufflenet_v2_x0_5")
    assert "norms: as published" in out


@pytest.mark.parametrize("large", [True, False])
def test_norms_of_other_networks_are_not_compared(run, digits_ghn, tmp_path, monkeypatch, large):
    """With other classes, or on small images, networks have other parameters than the published ones."""
    shutil.copytree(digits_ghn, tmp_path / "ghn3tm8")
    if large:
        monkeypatch.setattr(load_module, "load_images", lambda name, *_, **__: few_pictures(name, 10))
    code, out, _ = run("eval", tmp_path / "ghn3tm8", "--network", "shufflenet_v2_x0_5")
    assert code == 0
    assert not any(line.startswith("norms: ") for line in out)


def test_published_noise(run, digits_ghn, tmp_path, monkeypatch):
    digits = dataclasses.replace(load_module.load_images("digits", image_size=8), name="CIFAR10")
    monkeypatch.setattr(load_module, "load_images", lambda *_, **__: digits)
    path = tmp_path / "found.json"
    options = ("--split", "val", "--count", 1, "--width", 8, "--noise", "published", "--out", path)
    assert run("eval", digits_ghn, *options)[0] == 0
    assert json.loads(path.read_text())["val"]["predicted"]["settings"]["noise"] == 0.08


def test_a_checkpoint_of_a_run_is_evaluated(run, recipe, tmp_path):
    folder = tmp_path / "run"
    options = ("--steps", 2, "--device", "cpu", "-s", "ema=0.5", "-s", "image_size=11")
    assert run("train", recipe, "--out", folder, *options)[0] == 0
    found = []
    for name in ("checkpoints/step-000000002.pt", "ghn"):
        path = tmp_path / "found.json"
        assert run("eval", folder / name, "--split", "val", "--count", 1, "--out", path)[0] == 0
        report = json.loads(path.read_text())["val"]["predicted"]
        # As it was trained: digits are resized to 16 pixels otherwise, and networks are 32 channels wide.
        assert (report["settings"]["image_size"], report["settings"]["width"]) == (11, 8)
        found.append(report["rows"][0]["total_norm"])
    assert found[0] == found[1] > 0
    code, out, _ = run("eval", folder / "ghn", "--split", "val", "--count", 1, "--held-out")
    assert (code, out[0]) == (0, f"{folder}/ghn on 144 held-out images of digits")


def test_other_images_than_those_of_the_training_are_said_once(run, caplog):
    warn_once.cache_clear()
    options = ("--split", "val", "--split", "test", "--count", 1, "--width", 8, "--image-size", 8)
    assert run("eval", "digits", *options)[0] == 0
    said = [message for message in caplog.messages if "trained for" in message]
    assert said == ["the GHN was trained for images of 16 pixels, not of 8, so that its networks may be worse here"]


def test_options_of_image_data_are_passed_on(run, digits_ghn, recipe, monkeypatch):
    asked = []

    def refuse(name, folder, **options):
        asked.append((name, options.get("num_classes"), options["download"]))
        raise ImagesError("none here")

    monkeypatch.setattr(load_module, "load_images", refuse)
    monkeypatch.setattr(streams_module, "load_images", refuse)
    for command, classes, download in (
        (f"eval {digits_ghn} --images svhn --download", None, True),
        (f"eval {digits_ghn} --images svhn --num-classes 10", 10, False),
        (f"rank {digits_ghn} --images svhn --download", None, True),
        (f"finetune resnet18 --ghn {digits_ghn} --images svhn --keep-classifier --num-classes 7", 7, False),
        (f"train {recipe} --fast-dev-run --device cpu -s images=svhn -s download=true", 10, True),
    ):
        failed(run(*command.split()))
        assert asked.pop() == ("svhn", classes, download)


def test_it_fails_if_no_network_runs(run, digits_ghn):
    code, out, _ = run("eval", digits_ghn, "--network", "vit_b_16", "--image-size", 8)
    assert code == 2
    assert any("has no version for small inputs" in line for line in out)
