import os

import pytest
import torch

from ghn_pyg import CheckpointError
from ghn_pyg.training.checkpoints import checkpoint_paths, read_checkpoint, write_checkpoint
from tests.cli.outcomes import small_disk


def state(step, **tensors):
    other = {part: {} for part in ("config", "data", "average", "optimizer", "scaler")}
    return {**other, "ghn": tensors, "progress": {"step": step}}


def test_the_last_checkpoints_are_kept(tmp_path):
    folder = tmp_path / "new" / "checkpoints"
    assert checkpoint_paths(folder) == []
    for step in (0, 700, 80, 9, 1000):
        write_checkpoint(folder, state(step, weight=torch.tensor([step, 3])), keep=3)
    names = ["step-000000080.pt", "step-000000700.pt", "step-000001000.pt"]
    assert [path.name for path in checkpoint_paths(folder)] == names == sorted(os.listdir(folder))
    assert read_checkpoint(folder / names[1])["ghn"]["weight"].tolist() == [700, 3]


def test_some_checkpoints_stay(tmp_path):
    for step in range(0, 19, 3):
        write_checkpoint(tmp_path, state(step), keep=2, kept_steps=6)
    assert [int(path.stem[5:]) for path in checkpoint_paths(tmp_path)] == [6, 12, 15, 18]


@pytest.mark.parametrize("size", [7, 7_000, 700_000])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, size):
    write_checkpoint(tmp_path, state(5, weight=torch.ones(3)), keep=1)
    before = (tmp_path / "step-000000005.pt").read_bytes()
    with small_disk(), pytest.raises(CheckpointError, match=r"cannot write .*step-000000007\.pt: .*File too large"):
        write_checkpoint(tmp_path, state(7, weight=torch.ones(size)), keep=1)
    assert os.listdir(tmp_path) == ["step-000000005.pt"]
    assert (tmp_path / "step-000000005.pt").read_bytes() == before


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    "content", [b"", b"damaged" * 99, {"ghn": {}}, Evil()], ids=["empty", "damaged", "other", "evil"]
)
def test_files_that_are_not_checkpoints(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "step-000000005.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"step-000000005\.pt") as error:
        read_checkpoint(path)
    assert "weights_only" not in str(error.value)
    assert os.listdir(tmp_path) == ["step-000000005.pt"]
