import json
import os
import re
import subprocess
import sys

import networkx as nx
import pytest
import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file
from tests.models.checkpoints.checkpoint_files import TINY2, published_state

import ghn_pyg
from ghn_pyg import GHN, GHNConfig, cli
from ghn_pyg.models.checkpoints import locate as hub
from ghn_pyg.zoo.torchvision_models import build, models
from tests.cli.outcomes import failed, small_disk

SMALL = GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("ghn")
    GHN(SMALL).save_pretrained(path)
    return str(path)


def test_version(run):
    assert run("--version") == (0, [f"ghn-pyg {ghn_pyg.__version__}"], "")


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    assert {"predict", "graph", "init", "convert", "models"} <= set(" ".join(out).split())


def test_options_are_named_as_the_readme_has_them():
    """Some versions of typer name an option by its metavar, ``--DEVICE``."""
    groups = [typer.main.get_command(cli.app)]
    for group in groups:
        groups += getattr(group, "commands", {}).values()
        assert all(option == option.lower() for parameter in group.params for option in parameter.opts)
    assert "--device" in {option for group in groups for parameter in group.params for option in parameter.opts}


# predict


def test_predict(run, folder, tmp_path):
    path = tmp_path / "resnet18.safetensors"
    code, out, err = run("predict", "resnet18", "--ghn", folder, "--out", path)
    assert (code, err) == (0, "")
    assert out[:4] == [
        f"resnet18 by {folder}",
        "graph 53 nodes, 60 edges",
        "predicted 62 tensors, 11,689,512 parameters",
        "kept none",
    ]
    prediction = GHN.from_pretrained(folder).predict(build("resnet18"))
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
        assert file.metadata() == {
            "format": "pt",
            "architecture": "resnet18",
            "ghn": folder,
            "ghn_pyg": ghn_pyg.__version__,
            "kept": "{}",
            "seed": "0",
        }
    assert os.listdir(tmp_path) == [path.name]


def test_predict_without_the_classifier_in_half_precision(run, folder, tmp_path):
    path = tmp_path / "half.safetensors"
    options = ["--out", path, "--keep-classifier", "--dtype", "bfloat16", "--seed", 5]
    code, out, _ = run("predict", "squeezenet1_1", "--ghn", folder, *options)
    assert code == 0
    assert out[2:4] == [
        "predicted 50 tensors, 722,496 parameters",
        "kept 2 tensors, 513,000 parameters: it belongs to the classification layer (classifier.1.weight, "
        "classifier.1.bias)",
    ]
    saved = load_file(path)
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert sorted(json.loads(metadata["kept"])) == ["classifier.1.bias", "classifier.1.weight"]
    assert not set(json.loads(metadata["kept"])) & set(saved)
    assert metadata["seed"] == "5"


def test_kept_parameters_are_grouped_by_reason(run, folder):
    _, out, _ = run("predict", "convnext_tiny", "--ghn", folder, "--keep-classifier")
    kept = [line for line in out if line.startswith("kept")]
    assert [line.split(":")[0] for line in kept] == [
        "kept 18 tensors, 6,624 parameters",
        "kept 2 tensors, 769,000 parameters",
    ]
    named = "(features.1.0.layer_scale, features.1.1.layer_scale, features.1.2.layer_scale and 15 more)"
    assert kept[0].endswith(named)
    assert not any(line.startswith("saved") for line in out)


def test_predictions_repeat_and_follow_the_seed(run, folder, monkeypatch):
    seen = []

    def predict(*arguments, **options):
        seen.append(original(*arguments, **options))
        return seen[-1]

    original = GHN.predict
    monkeypatch.setattr(GHN, "predict", predict)
    for seed in ([], ["--seed", 0], ["--seed", 1]):
        assert run("predict", "vit_b_32", "--ghn", folder, *seed)[0] == 0
    first, same, other = (prediction["encoder.pos_embedding"][0, 0] for prediction in seen)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_devices_that_are_there_are_named(run, folder, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    message = failed(run("predict", "alexnet", "--ghn", folder, "--device", "cuda:2"))
    assert "there is no device 'cuda:2' here, expected cpu or cuda or cuda:0 or cuda:1" in message


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_predictions_on_a_gpu(device, run, folder, tmp_path):
    path = tmp_path / "x.safetensors"
    assert run("predict", "squeezenet1_1", "--ghn", folder, "--out", path, "--device", device)[0] == 0
    prediction = GHN.from_pretrained(folder).predict(build("squeezenet1_1"))
    torch.testing.assert_close(load_file(path), dict(prediction), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["ghn3tm8", "ghn3tm8.pt"])
def test_published_norms_are_those_of_published_names(name, run, folder, monkeypatch):
    monkeypatch.setattr(hub, "resolve", lambda _: folder)
    line = run("predict", "squeezenet1_1", "--ghn", name)[1][4]
    norm, percent = re.fullmatch(r"total norm ([\d.]+), published 69\.3108 \(([+-][\d.]+)%\)", line).groups()
    assert float(percent) == pytest.approx(100 * (float(norm) / 69.3108 - 1), abs=3e-4)
    assert "published" not in run("predict", "squeezenet1_1", "--ghn", name, "--keep-classifier")[1][4]
    assert "published" not in run("predict", "swin_v2_t", "--ghn", name)[1][4]


def test_a_local_file_with_a_published_name_has_no_published_norm(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(folder, "ghn3tm8")
    assert "published" not in run("predict", "squeezenet1_1", "--ghn", "ghn3tm8")[1][4]


# graph


def test_graph(run):
    code, out, err = run("graph", "resnet18")
    assert (code, err) == (0, "")
    rows = [line for line in out if line and "─" not in line]
    assert rows[:-1] == [
        "resnet18",
        "node type nodes parameters",
        "conv 21 11,678,912",
        "bn 20 9,600",
        "sum 8",
        "input 1",
        "max_pool 1",
        "glob_avg 1",
        "bias 1 1,000",
        "nodes 53",
        "edges 60",
        "depth 46 edges on the longest path",
        "distance 20 edges at most on the shortest path between two nodes, cut at 50",
        "predicted 62 tensors, 11,689,512 parameters",
        "kept none",
    ]
    assert rows[-1].startswith("time 0.")


def test_graph_says_what_is_kept(run):
    _, out, _ = run("graph", "vit_b_32")
    assert "predicted 151 tensors, 88,223,464 parameters" in out
    (kept,) = [line for line in out if line.startswith("kept")]
    assert kept.startswith("kept 1 tensor, 768 parameters: ")
    assert kept.endswith(" (class_token)")


@pytest.mark.parametrize("suffix", ["graphml", "json", "svg"])
def test_graph_is_saved(suffix, run, tmp_path):
    path = tmp_path / f"resnet18.{suffix}"
    code, out, _ = run("graph", "resnet18", "--out", path)
    assert code == 0
    assert out[-1] == f"saved {path}"
    assert "conv1.weight" in path.read_text(encoding="utf-8")
    if suffix == "graphml":
        assert nx.read_graphml(path).graph["name"] == "resnet18"


# init, convert, models


def test_init(run, tmp_path):
    code, out, err = run("init", "ghn2", "--out", tmp_path / "new" / "ghn", "--num-classes", 7)
    assert (code, err) == (0, "")
    assert out == ["ghn2", "parameters 2,190,630", f"saved {tmp_path}/new/ghn"]
    ghn = ghn_pyg.from_pretrained(tmp_path / "new" / "ghn")
    assert ghn.config == GHNConfig.preset("ghn2", num_classes=7)


def test_init_follows_the_seed(run, tmp_path):
    states = []
    for number, seed in enumerate(([], ["--seed", 0], ["--seed", 1])):
        assert run("init", "mlp", "--out", tmp_path / str(number), *seed)[0] == 0
        states.append(load_file(tmp_path / str(number) / "model.safetensors"))
    first, same, other = (state["node_embedding.weight"] for state in states)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_convert(run, tmp_path):
    path = tmp_path / "published.pt"
    torch.save(published_state(TINY2), path)
    code, out, err = run("convert", path, "--out", tmp_path / "ours")
    assert (code, err) == (0, "")
    assert out[0] == str(path)
    assert out[-1] == f"saved {tmp_path}/ours"
    ours, published = GHN.from_pretrained(tmp_path / "ours"), GHN.from_pretrained(path)
    assert ours.config == TINY2
    assert all(torch.equal(tensor, published.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_models(run):
    code, out, err = run("models")
    assert (code, err) == (0, "")
    rows = [line for line in out if line and "─" not in line]
    assert rows[:-1] == [
        "name parameters width channels layers heads classes trained",
        "ghn3tm8 6,906,632 64 64 3 8 1000 on the hub",
        "ghn3sm8 35,810,368 128 128 5 16 1000 on the hub",
        "ghn3lm8 214,668,960 256 256 12 16 1000 on the hub",
        "ghn3xlm16 654,365,184 384 384 24 16 1000 on the hub",
        "ghn2 2,319,720 32 64 1000 on the hub",
        "ghn1 2,319,688 32 64 1000",
        "mlp 2,313,352 32 64 1000",
        "digits 1,748,588 64 32 3 8 10 here",
    ]
    assert "ghn-pyg init NAME" in rows[-1]


def test_networks(run):
    code, names, err = run("models", "--networks")
    assert (code, err) == (0, "")
    assert names[: len(models())] == models()
    assert {"timm/test_vit", "timm/resnet18", "hf/bert", "hf/gpt2"} <= set(names)


def test_networks_of_libraries_that_are_missing_are_left_out(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert run("models", "--networks") == (0, models(), "")


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict resnet5 --ghn {ghn}", "no network 'resnet5'; did you mean resnet50 or"),
        ("predict transformer --ghn {ghn}", "`ghn-pyg models --networks` list them"),
        ("predict resnet18 --ghn ghn3tm9", "did you mean ghn3tm8 or"),
        ("predict resnet18 --ghn {tmp}/none.pt", "none.pt' is not a file or folder"),
        ("predict resnet18 --ghn {tmp}/note.txt", "note.txt: expected a folder with config.json"),
        ("predict resnet18 --ghn {ghn} --out {tmp}/x.pt", "x.pt, expected a name that ends in .safetensors"),
        ("predict resnet18 --ghn {ghn} --out {tmp}/a/x.safetensors", "there is no folder"),
        ("predict resnet18 --ghn {ghn} --out {tmp}/note.txt/x.safetensors", "there is no folder"),
        ("predict resnet18 --ghn {ghn} --out {tmp}/folder.safetensors", "folder.safetensors: it is a folder"),
        ("predict resnet18 --ghn {ghn} --device gpu", "there is no device 'gpu' here, expected cpu"),
        ("predict resnet18 --ghn {ghn} --device cuda:99", "there is no device 'cuda:99' here, expected cpu"),
        ("graph resnet_18", "did you mean resnet18 or"),
        ("graph resnet18 --out {tmp}/x.pdf", "x.pdf, expected a name that ends in .graphml, .json, .svg"),
        ("graph resnet18 --out {tmp}/a/x.svg", "there is no folder"),
        ("init ghn3tm --out {tmp}/x", "unknown preset 'ghn3tm'"),
        ("init mlp --out {tmp}/note.txt", "note.txt: {tmp}/note.txt is a file, expected the name of a folder"),
        ("init mlp --out {tmp}/note.txt/x", "note.txt/x: {tmp}/note.txt is a file, expected the name of a folder"),
        ("convert {tmp}/none --out {tmp}/x", "none' is not a file or folder"),
        ("convert {tmp}/note.txt --out {tmp}/x", "note.txt: expected a folder with config.json"),
        ("convert {ghn} --out {tmp}/note.txt", "cannot write a checkpoint into"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(arguments, message, run, folder, tmp_path):
    (tmp_path / "note.txt").write_text("no checkpoint")
    (tmp_path / "folder.safetensors").mkdir()
    assert message.format(tmp=tmp_path) in failed(run(*arguments.format(ghn=folder, tmp=tmp_path).split()))
    assert sorted(os.listdir(tmp_path)) == ["folder.safetensors", "note.txt"]


@pytest.mark.parametrize("command", ["init mlp", "convert {ghn}"])
def test_a_read_only_folder_shows_before_the_work(command, run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    message = failed(run(*command.format(ghn=folder).split(), "--out", tmp_path / "a" / "b"))
    assert f"cannot write a checkpoint into {tmp_path}/a/b: the folder {tmp_path} is read-only" in message


@pytest.mark.parametrize("command", ["predict resnet18 --ghn {ghn}", "graph resnet18"])
def test_a_read_only_disk_shows_before_the_work(command, run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    path = tmp_path / ("x.svg" if command.startswith("graph") else "x.safetensors")
    message = failed(run(*command.format(ghn=folder).split(), "--out", path))
    assert f"cannot write {path}: the folder {tmp_path} is read-only" in message


@pytest.mark.parametrize(
    "command", ["predict resnet18 --ghn {ghn} --out {tmp}/x.safetensors", "graph resnet18 --out {tmp}/x.svg"]
)
def test_a_full_disk_leaves_the_old_file(command, run, folder, tmp_path):
    arguments = command.format(ghn=folder, tmp=tmp_path).split()
    (tmp_path / "x.svg").write_text("old")
    (tmp_path / "x.safetensors").write_text("old")
    with small_disk():
        result = run(*arguments)
    assert f"cannot write {arguments[-1]}: " in failed(result)
    assert sorted(os.listdir(tmp_path)) == ["x.safetensors", "x.svg"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}


@pytest.mark.parametrize("command", ["init mlp", "convert {ghn}"])
def test_a_full_disk_leaves_no_checkpoint(command, run, folder, tmp_path):
    with small_disk():
        result = run(*command.format(ghn=folder).split(), "--out", tmp_path)
    message = failed(result)
    assert f"cannot write a checkpoint into {tmp_path}: " in message
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [["predict"], ["predikt"], ["predict", "resnet18"], ["init", "mlp", "--out", "x", "--num-classes", "0"]],
)
def test_wrong_usage(arguments, run):
    code, out, err = run(*arguments)
    assert (code, out) == (2, [])
    assert "Usage: ghn-pyg" in err


def test_faults_of_the_program_keep_their_traceback(run, folder, monkeypatch):
    def fault(*_, **__):
        raise ValueError("a fault")

    monkeypatch.setattr(GHN, "predict", fault)
    with pytest.raises(ValueError, match="a fault"):
        run("predict", "resnet18", "--ghn", folder)


# In a process of its own


def command(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def test_output_is_plain_in_a_pipe_and_nothing_warns():
    done = command("-m", "ghn_pyg.cli", "graph", "resnet18")
    assert done.stderr == ""
    assert done.stdout.startswith("resnet18\n")
    assert "\x1b" not in done.stdout


EARLY = [
    "predict --help",
    "predict resnet18 --ghn x --out x.pt",
    "graph resnet18 --out x.png",
    "graph tim/resnet18",
    "graph resnet18 --input 1x3xx",
    "coverage --help",
    "coverage resnet18 hf/nobody/nothing",
    "coverage resnet18 --csv x.json",
    "init ghn3 --out x",
    "deepnets stats val foo",
    "deepnets show val 0 --out x.png",
]


@pytest.mark.parametrize("arguments", EARLY)
def test_help_and_slips_do_not_wait_for_torch(arguments):
    script = f"""
import sys
from ghn_pyg import cli
sys.argv = ["ghn-pyg", *"{arguments}".split()]
try:
    cli.main()
finally:
    print("\\n", {{"torch", "torch_geometric", "torchvision", "numpy"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == (0 if "--help" in arguments else 2)
    assert done.stdout.endswith(" set()\n")
