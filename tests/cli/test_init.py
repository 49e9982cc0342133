import os

import pytest
import torch
from safetensors.torch import load_file

import ghn_pyg
from ghn_pyg import GHNConfig
from tests.cli.outcomes import failed, small_disk


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("init ghn3tm --out {tmp}/x", "unknown preset 'ghn3tm'"),
        ("init mlp --out {tmp}/note.txt", "folder {tmp}/note.txt: {tmp}/note.txt is a file"),
        ("init mlp --out {tmp}/note.txt/x", "folder {tmp}/note.txt/x: {tmp}/note.txt is a file"),
        ("convert {tmp}/none --out {tmp}/x", "none' is no file or folder here"),
        ("convert {tmp}/note.txt --out {tmp}/x", "note.txt: expected a folder with config.json"),
        ("convert {ghn} --out {tmp}/note.txt", "cannot write into the folder {tmp}/note.txt"),
    ],
)
def test_errors_are_one_line_and_write_nothing(arguments, message, run, ghn, tmp_path):
    (tmp_path / "note.txt").write_text("no checkpoint")
    assert message.format(tmp=tmp_path) in failed(run(*arguments.format(ghn=ghn, tmp=tmp_path).split()))
    assert os.listdir(tmp_path) == ["note.txt"]


@pytest.mark.parametrize("command", ["init mlp", "convert {ghn}"])
def test_a_read_only_folder_is_refused_before_the_work(command, run, ghn, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    message = failed(run(*command.format(ghn=ghn).split(), "--out", tmp_path / "a" / "b"))
    assert f"cannot write into the folder {tmp_path}/a/b: {tmp_path} is read-only" in message


@pytest.mark.parametrize("command", ["init mlp", "convert {ghn}"])
def test_a_full_disk_leaves_no_checkpoint(command, run, ghn, tmp_path):
    with small_disk():
        result = run(*command.format(ghn=ghn).split(), "--out", tmp_path)
    message = failed(result)
    assert f"cannot write a checkpoint into {tmp_path}: " in message
    assert os.listdir(tmp_path) == []
