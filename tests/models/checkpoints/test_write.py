import errno
import json
import os
import sys

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from ghn_pyg import CheckpointError, GHNConfig
from ghn_pyg.models.checkpoints import read_checkpoint, write_folder
from ghn_pyg.models.checkpoints.published_keys import from_published
from tests.killed import killed_at
from tests.models.checkpoints.checkpoint_files import TINY, TINY2, published_state, same

OURS = from_published(published_state(TINY))


def test_a_written_folder(tmp_path):
    folder = tmp_path / "new" / "ghn"
    write_folder(folder, TINY, {"norm.weight": torch.arange(6.0).view(2, 3).t()}, {"epoch": "75"})
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert GHNConfig.from_dict(json.loads((folder / "config.json").read_text())) == TINY
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert file.get_tensor("norm.weight").tolist() == [[0, 3], [1, 4], [2, 5]]
        metadata = file.metadata()
    assert json.loads(metadata.pop("config")) == TINY.to_dict()
    assert metadata == {"format": "pt", "epoch": "75"}


def test_a_model_can_replace_the_checkpoint_that_it_was_mapped_from(tmp_path):
    write_folder(tmp_path, TINY, OURS)
    config, state = read_checkpoint(tmp_path)
    write_folder(tmp_path, config, state)
    assert same(read_checkpoint(tmp_path)[1], OURS)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, request):
    write_folder(tmp_path, TINY, OURS)
    request.getfixturevalue("full_disk")
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint into .*: .*No space left on device"):
        write_folder(tmp_path, TINY, {"norm.weight": torch.ones(3)})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert same(read_checkpoint(tmp_path)[1], OURS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is another process")
@pytest.mark.parametrize("foreign", [False, True])
def test_a_killed_writer_leaves_one_whole_checkpoint(foreign, tmp_path):
    other, states = TINY2.replace(weight_norm=False), {"old": OURS, "new": from_published(published_state(TINY2))}
    found = []
    for step in range(1000):
        write_folder(tmp_path, TINY, OURS)
        if foreign:  # without a configuration in the header
            save_file(OURS, tmp_path / "model.safetensors")
        if not killed_at(step, lambda: write_folder(tmp_path, other, states["new"])):
            break
        config, state = read_checkpoint(tmp_path)
        found.append("old" if config == TINY else "new")
        assert config == {"old": TINY, "new": other}[found[-1]]
        assert same(state, states[found[-1]])
    assert found.count("old") > 10
    assert found.count("new") > 1
    assert found == sorted(found, reverse=True)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("call", range(2))
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_error_at_the_last_steps_leaves_one_whole_checkpoint(step, call, tmp_path, monkeypatch):
    real, calls = getattr(os, step), []

    def fail(*args):
        calls.append(args)
        if len(calls) == call + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    write_folder(tmp_path, TINY, OURS)
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_folder(tmp_path, TINY2, from_published(published_state(TINY2)))
    # Only the error between the last two steps comes after the new weights are there.
    assert read_checkpoint(tmp_path)[0] == (TINY2 if (step, call) == ("replace", 1) else TINY)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "ghn").write_text("mine")
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint into .*ghn: .*exists"):
        write_folder(tmp_path / "ghn", TINY, OURS)
    assert (tmp_path / "ghn").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint into .*: .*[Pp]ermission denied"):
        write_folder(tmp_path, TINY, OURS)
    tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []
