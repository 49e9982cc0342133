"""Errors that a user can fix are one line, come before the work, and leave no files behind."""

import os
import sys

import pytest

from ghn_pyg import GHN
from tests.cli.outcomes import failed, small_disk

NETWORKS = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(3, 5), nn.Linear(7, 11)

    def forward(self, x):
        return self.used(x)
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "error_nets.py").write_text(NETWORKS)
    (tmp_path / "note.txt").write_text("no checkpoint")
    (tmp_path / "nested.yaml").write_text("a: " + "[" * 3000)
    (tmp_path / "folder.safetensors").mkdir()


def files(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        # names of networks, and their inputs
        ("graph resnet_18", "no network 'resnet_18'; did you mean resnet18 or"),
        ("coverage timm/no_such_*", "no network matches 'timm/no_such_*'"),
        ("predict module:error_nets:Nat --ghn {ghn}", "error_nets has no Nat; did you mean Net?"),
        ("graph module:error_nets:Net", "failed in 'used' on input of shape (1, 3, 224, 224)"),
        ("coverage alexnet --input 3,4", "--input expected a shape"),
        ("graph resnet18 --input a=3 --input 4", "--input expected a different keyword for each input"),
        ("graph resnet18 --input 1x3x1000000000x1000000000", "at most 1,099,511,627,776 elements"),
        ("graph resnet18 --input 1x3x1000000x1000000:long", "at most 268,435,456 elements"),
        ("graph a\x1b[2Jb", "no network 'a\\x1b[2Jb'"),
        ("graph module:error_nets:Net --input 1x3 --strict --out x.svg", "1 weight matrix is not predicted"),
        ("predict module:error_nets:Net --ghn none --input 1x3 --strict", "unused.weight (11×7)"),
        # GHNs
        ("predict resnet18 --ghn ghn3tm9", "did you mean ghn3tm8 or"),
        ("convert note.txt --out x", "note.txt: expected a folder with config.json"),
        ("init ghn3tm --out x", "unknown preset 'ghn3tm'"),
        ("eval", "expected a GHN, such as digits, or --weights"),
        ("finetune resnet18 --ghn {ghn}", "add --keep-classifier"),
        ("eval {ghn} --count 1", "the GHN is for 1000 classes and digits has 10"),
        ("rank {ghn} --count 2", "the GHN is for 1000 classes and digits has 10"),
        ("eval {digits_ghn} --compare sgd:1 --train-batch-size 9999", "--train-batch-size must not exceed"),
        # files and folders
        ("predict resnet18 --ghn {ghn} --out x.pt", "x.pt: expected a name that ends in .safetensors"),
        ("predict resnet18 --ghn {ghn} --out folder.safetensors", "folder.safetensors: it is a folder"),
        ("predict resnet18 --ghn {ghn} --out x.safetensors --shards x", "expected either --out or --shards"),
        ("predict resnet18 --ghn {ghn} --shards x --shard-size inf", "expected a number of gigabytes"),
        (f"predict resnet18 --ghn {{ghn}} --out {'a' * 300}.safetensors", "File name too long"),
        ("init mlp --out=", "--out expected a value, got an empty text"),
        ("init mlp --out note.txt", "the folder note.txt: note.txt is a file"),
        ("deepnets export val --out no/such/folder.hdf5", "the folder no/such does not exist"),
        # devices, splits and image data
        ("predict resnet18 --ghn {ghn} --device gpu", "unknown device 'gpu'; this machine has cpu"),
        ("train digits --fast-dev-run --device cuda:99", "unknown device 'cuda:99'"),
        ("deepnets show val 500", "split 'val' has positions 0 to 499, got 500"),
        ("deepnets sample val --start 495 --count 6", "positions 0 to 499, got 495 to 500"),
        ("deepnets stats val --count 1 --image-size 2", "image_size must be at least 4, got 2"),
        (
            "eval {digits_ghn} --images cifar10 --data /nowhere",
            "CIFAR10 in the folder /nowhere",
        ),
        ("finetune vit_b_32 --ghn {digits_ghn} --image-size 96", "vit_b_32 cannot take images of 96 pixels"),
        ("demo --ghn {digits_ghn} --network vit_b_16", "VisionTransformer has no version for small inputs"),
        # evaluation
        ("eval {ghn} --compare sgd", "--compare expected random, sgd:N or finetuned:N with N epochs, got 'sgd'"),
        ("eval {ghn} --noise loud", "--noise expected a number of at least 0, or published, got 'loud'"),
        ("eval {digits_ghn} --noise published", "no noise is published for digits"),
        ("eval {digits_ghn} --statistics running --network resnet18", "only trained networks have running statistics"),
        ("eval {digits_ghn} --statistics running --count 1", "expected recalibrated or batch"),
        ("eval {digits_ghn} --statistics batch --batch-size 1", "batch_size of at least 2"),
        ("eval {digits_ghn} --held-out", "--held-out expected a GHN that is not trained on all training images"),
        ("eval {ghn} --weights x.safetensors --network resnet18", "neither a GHN nor --split nor --compare"),
        ("eval --weights x.safetensors", "--weights needs one --network"),
        ("eval --weights x.safetensors --network resnet18", "x.safetensors holds no resnet18 for 10 classes"),
        # recipes and configurations
        ("train", "expected a CONFIG: the name of a recipe (see --list) or a YAML file"),
        ("train digits", "expected --out with the folder of the run, or --fast-dev-run"),
        ("train digit --fast-dev-run", "no recipe 'digit'; did you mean digits"),
        ("train nested.yaml --fast-dev-run", "nested too deeply"),
        ("train digits --fast-dev-run -s ghn.num_classes=100000", "for 100000 classes and digits has 10"),
        ("train digits --fast-dev-run -s ghn.num_classes=100000000000", "num_classes expected"),
        ("train digits --fast-dev-run -s ghn.num_classes=7", "for 7 classes and digits has 10"),
        ("finetune resnet18 --recipe sdg", "unknown recipe 'sdg', expected one of sgd, adamw, timm; did you mean sgd"),
        ("finetune resnet18 --ghn {digits_ghn} --recipe timm", "must not exceed the 1298 training images"),
        ("bench encoders --out x -s encoders=[mpl]", "got 'mpl'; did you mean mlp"),
        ("bench encoders --out x --import no_such_module", "No module named 'no_such_module'"),
    ],
)
def test_an_error_is_one_line_and_writes_nothing(command, message, run, ghn, digits_ghn, tmp_path):
    before = files(tmp_path)
    error = failed(run(*command.format(ghn=ghn, digits_ghn=digits_ghn).split()))
    assert message in error
    assert not any(call in error for call in ("from_module(", "register_layer", "example_inputs", "FitConfig"))
    assert files(tmp_path) == before


@pytest.mark.parametrize("command", ["graph module:error_nets:Net", "graph module:error_nets:Net --input 1x3 --strict"])
def test_advice_is_about_options(command, run):
    assert "with --input, such as --input 1x3x32x32" in failed(run(*command.split()))


@pytest.mark.parametrize(
    "command", ["predict resnet18 --ghn {ghn} --out x.safetensors", "graph resnet18 --out x.svg", "init mlp --out a/b"]
)
def test_a_read_only_folder_is_refused_before_the_work(command, run, ghn, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "is read-only" in failed(run(*command.format(ghn=ghn).split()))


@pytest.mark.parametrize(
    "command",
    [
        "predict resnet18 --ghn {ghn} --out old.safetensors",
        "graph resnet18 --out old.svg",
        "coverage resnet18 --csv old.csv",
        f"coverage alexnet {' '.join('x' * 90 + str(number) for number in range(11))} --csv old.csv",
        "deepnets sample val --count 3 --out old.json",
        "deepnets stats val --count 20 --out old.csv",
        "deepnets export val --count 2 --out old.hdf5",
        "deepnets show val 3 --out old.svg",
        "init mlp --out new",
        "convert {ghn} --out new",
    ],
)
def test_a_full_disk_keeps_the_old_file(command, run, ghn, tmp_path):
    if "hdf5" in command:
        pytest.importorskip("h5py")
    out = command.split()[-1]
    if out != "new":
        (tmp_path / out).write_text("old")
    before = files(tmp_path)
    with small_disk():
        code, _, error = run(*command.format(ghn=ghn).split())
    assert code == 2
    assert "Error: cannot write" in error
    assert out in error
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "command",
    [
        "predict", "predikt", "predict resnet18", "init mlp --out x --num-classes 0",
        "init mlp --out x --num-classes 100000000000", "eval digits --num-classes 100000000000",
        "deepnets show val 3 --num-classes 100000000000",
    ],
)  # fmt: skip
def test_wrong_usage(command, run):
    code, out, error = run(*command.split())
    assert (code, out) == (2, [])
    assert "Usage: ghn-pyg" in error


@pytest.mark.parametrize("command", ["eval digits", "rank digits", "demo"])
def test_commands_of_one_process_are_not_started_by_torchrun(command, run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "start it without torchrun" in failed(run(*command.split()))


def test_networks_of_a_benchmark_without_extras(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    before = files(tmp_path)
    assert "digits need sklearn" in failed(run("bench", "networks", "--out", "x"))
    assert files(tmp_path) == before


def test_faults_of_the_program_keep_their_traceback(run, ghn, monkeypatch):
    def fault(*_, **__):
        raise ValueError("a fault")

    monkeypatch.setattr(GHN, "predict", fault)
    with pytest.raises(ValueError, match="a fault"):
        run("predict", "resnet18", "--ghn", ghn)
