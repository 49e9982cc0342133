import json
import os
import re
import signal
import sys
import time

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from ghn_pyg import cli
from ghn_pyg.data.load import load_images
from ghn_pyg.evaluation.subjects import torchvision_subjects
from ghn_pyg.finetuning import train_network
from ghn_pyg.finetuning.saved_network import read_info
from ghn_pyg.training.logs import read_log
from tests.cli.outcomes import failed
from tests.training.tiny import free_port, rank_environment, start


def test_finetune(run, digits_ghn, tmp_path):
    path = tmp_path / "network.safetensors"
    name = "shufflenet_v2_x0_5"
    sizes = ("--image-size", 8, "--batch-size", 256, "--epochs", 2)
    code, out, _ = run("finetune", name, "--ghn", digits_ghn, *sizes, "--compare", "--out", path)
    assert code == 0
    assert "parameters before after 1 epoch after 2 epochs seconds" in out
    assert sum(line.startswith(("predicted ", "random ")) for line in out) == 2
    network = torchvision_subjects([name], 10, 8)[0].build()
    network.load_state_dict(load_file(path))
    info = read_info(path)
    assert (info.architecture, info.data, info.image_size, info.num_classes) == (name, "digits", 8, 10)
    assert info.classes == tuple("0123456789")
    assert info.std == load_images("digits", image_size=8).std
    assert network.conv1[1].num_batches_tracked == 10  # recalibrated
    found = []
    for statistics in ("batch", "running"):
        results = tmp_path / "found.json"
        what = ("--weights", path, "--network", name, "--statistics", statistics)
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
    assert "holds no resnet18 for 10 classes and images of 8 pixels: size mismatch for fc.weight: " in message


def test_a_network_of_another_library_is_saved_while_it_is_trained(run, digits_ghn, tmp_path, monkeypatch):
    """A killed command leaves what it has reached, and tells where there is no terminal how far it is."""
    path = tmp_path / "network.safetensors"
    found = []
    monkeypatch.setattr("ghn_pyg.cli.finetune.SAVE_SECONDS", 0)
    real = train_network.fit

    def watched(network, *arguments, **options):
        progress = options["progress"]

        def note(epoch):
            progress(epoch)
            if path.exists():
                found.append((epoch.epoch, load_file(path)["fc.weight"].clone()))
                path.unlink()

        return real(network, *arguments, **{**options, "progress": note})

    monkeypatch.setattr(train_network, "fit", watched)
    options = ("--ghn", digits_ghn, "--image-size", 8, "--batch-size", 256, "--epochs", 2, "--out", path)
    code, _, err = run("finetune", "timm/test_resnet", *options)
    assert code == 0
    assert [epoch for epoch, _ in found] == [1]
    assert not torch.equal(found[0][1], load_file(path)["fc.weight"])
    assert re.search(
        r"^timm/test_resnet, predicted: epoch \d\.\d+ of 2, loss \d\.\d+, held-out \d+\.\d%, \d+ min left$",
        err,
        re.M,
    )


def test_a_full_disk_leaves_nothing_half_written(run, digits_ghn, tmp_path, full_disk):
    path = tmp_path / "network.safetensors"
    options = ("--ghn", digits_ghn, "--image-size", 8, "--out", path)
    assert "No space left on device" in failed(run("finetune", "shufflenet_v2_x0_5", *options))
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.name != ".lock"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_same_command_goes_on_after_a_kill(run, digits_ghn, tmp_path, monkeypatch):
    def arguments(path, *more):
        sizes = ("--image-size", 8, "--batch-size", 256, "--epochs", 2)
        return "finetune", "timm/test_resnet", "--ghn", digits_ghn, *sizes, "--out", path, *more

    code, out, _ = run(*arguments(tmp_path / "whole.safetensors"))
    assert code == 0
    path, log = tmp_path / "killed.safetensors", tmp_path / "killed.run" / "predicted" / "log.csv"
    for lines in (2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["ghn-pyg", *map(str, arguments(path))])
            process = start(cli.main)
        while process.is_alive() and (not log.exists() or log.read_text().count("\n") < lines):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    code, resumed, _ = run(*arguments(path))
    assert code == 0
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    accuracies = [
        next(line.split()[1:-1] for line in lines if line.startswith("predicted")) for lines in (out, resumed)
    ]
    assert accuracies[0] == accuracies[1]
    logs = [read_log(tmp_path / f"{name}.run" / "predicted" / "log.csv") for name in ("whole", "killed")]
    for first, second in zip(*logs, strict=True):
        assert repr({**first, "seconds": 0}) == repr({**second, "seconds": 0})
    assert [row["epoch"] for row in logs[0]] == [0, 1, 2]
    assert all(0 <= row["val_top1"] <= 1 for row in logs[0])
    error = failed(run(*arguments(path, "--held-out", 0.2, "--noise", 0.1)))
    assert "has another run, which differs in data, held_out, noise; use another name" in error


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes(run, digits_ghn, tmp_path, monkeypatch):
    """Both train, one writes and prints; a network of DeepNets-1M gets what belongs to the options."""
    path, port = tmp_path / "network.safetensors", free_port()
    options = ("--ghn", digits_ghn, "--image-size", 8, "--batch-size", 150, "--shots", 30, "--out", path)
    more = ("--drop-path", 0.1, "--cutout", 3, "--auxiliary", 0.4)

    def process():
        with open(tmp_path / f"{os.environ['RANK']}.txt", "w") as sys.stdout:
            cli.main()

    monkeypatch.setattr(sys, "argv", ["ghn-pyg", "finetune", "test/3", *map(str, (*options, *more))])
    processes = [start(process, **rank_environment(rank, 2, port)) for rank in range(2)]
    for each in processes:
        each.join(60)
    assert [each.exitcode for each in processes] == [0, 0]
    assert f"saved       {path}" in (tmp_path / "0.txt").read_text()
    assert (tmp_path / "1.txt").read_text() == ""
    assert len(read_log(tmp_path / "network.run" / "predicted" / "log.csv")) == 2
    assert read_info(path).auxiliary
    assert run("eval", "--weights", path, "--network", "test/3")[0] == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read(run, digits_ghn, tmp_path, workers):
    for part in ("train", "val"):
        for name in map(str, range(10)):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "picture.png").write_bytes(b"damaged")
    options = ("--ghn", digits_ghn, "--images", tmp_path, "--image-size", 8, "--batch-size", 2, "--workers", workers)
    error = failed(run("finetune", "shufflenet_v2_x0_5", *options))
    assert error.startswith("Error: cannot read ")
    assert "picture.png: cannot identify image file" in error
    assert "--skip-damaged" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("which", ["predicted", "random"])
def test_a_network_that_diverges(run, digits_ghn, tmp_path, monkeypatch, which):
    """The other one is trained and kept all the same; the command fails if its own purpose did."""
    real, calls = train_network.fit, []

    def diverging(network, *arguments, **options):
        calls.append(network)
        if ("predicted", "random")[len(calls) - 1] == which:
            raise FloatingPointError("losses are not finite in epoch 1")
        return real(network, *arguments, **options)

    monkeypatch.setattr(train_network, "fit", diverging)
    path = tmp_path / "network.safetensors"
    options = ("--ghn", digits_ghn, "--image-size", 8, "--batch-size", 256, "--compare", "--out", path)
    code, out, _ = run("finetune", "shufflenet_v2_x0_5", *options)
    assert code == (2 if which == "predicted" else 0)
    assert f"{which} failed losses are not finite in epoch 1" in out
    assert (f"saved {path}" in out) == path.exists() == (which == "random")


def test_options_of_recipes(run, digits_ghn, tmp_path):
    path = tmp_path / "network.safetensors"
    options = ("--ghn", digits_ghn, "--image-size", 8, "--batch-size", 10, "--epochs", 3, "--out", path)
    few = ("--shots", 2, "--weight-decay", 0, "--schedule", "steps", "--milestone", 1, "--milestone", 2)
    more = ("--warmup-epochs", 0.5, "--patience", 3, "--precision", "bf16-mixed")
    code, out, _ = run("finetune", "timm/test_resnet", *options, *few, *more)
    assert code == 0
    assert "trained on 20 images; 144 are held out" in out
    assert any(line.startswith("predicted the best of 3 epochs is epoch ") for line in out)
    log = read_log(tmp_path / "network.run" / "predicted" / "log.csv")
    assert [row["rate"] for row in log[1:]] == pytest.approx([0.025, 0.0025, 0.00025])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--schedule", "step"), "--schedule expected 'cosine', 'constant' or 'steps'"),
        (("--schedule", "steps"), "--milestone expected epochs"),
        (("--precision", "bf16"), "unknown precision 'bf16'; did you mean bf16-mixed"),
        (("--patience", 2, "--held-out", 0), "--patience needs held-out images"),
        (("--shots", 999), "--shots expected at most the "),
        (("--noise", "inf"), "--noise expected a number"),
        (("--image-size", 3), "--image-size expected at least 4 pixels"),
        (("--image-size", 99_999), "memory does not suffice"),
        (("--schedule", "steps", "--milestone", 0), "--milestone expected a value greater than 0"),
        (("--drop-path", 0.1), "--drop-path expected none for a network without residual branches"),
        (("--auxiliary", 0.4), "--auxiliary expected 0 for a network without such classifiers"),
        (("--shots", 5), "--batch-size must not exceed the 50 training images, got 64"),
    ],
    ids=str,
)
def test_faulty_options(run, digits_ghn, tmp_path, options, message):
    path = tmp_path / "network.safetensors"
    arguments = ("--ghn", digits_ghn, "--image-size", 8, "--out", path, *options)
    assert message in failed(run("finetune", "shufflenet_v2_x0_5", *arguments))
    assert list(tmp_path.iterdir()) == []


def test_pretrained_weights(run, digits_ghn, tmp_path):
    torch.manual_seed(3)
    save_file(timm.create_model("test_resnet").state_dict(), path := tmp_path / "weights.safetensors")
    options = ("--ghn", digits_ghn, "--image-size", 8, "--batch-size", 500)
    code, out, _ = run("finetune", "timm/test_resnet", *options, "--pretrained", path)
    assert code == 0
    assert "pretrained all but fc.weight, fc.bias" in out
    assert sum(line.startswith(("predicted ", "pretrained ")) and line.count("%") == 2 for line in out) == 2
    error = failed(run("finetune", "shufflenet_v2_x0_5", *options, "--pretrained", path))
    assert "the pretrained weights are not of shufflenet_v2_x0_5" in error
    assert "No such file" in failed(run("finetune", "timm/test_resnet", *options, "--pretrained", tmp_path / "none.pt"))
