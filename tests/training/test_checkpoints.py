import os

import pytest
import torch

from ghn_pyg import CheckpointError
from ghn_pyg.training.checkpoints import checkpoint_paths, read_training_checkpoint, write_checkpoint
from ghn_pyg.training.logs import CSVLog, LogRow, read_log
from tests.cli.outcomes import small_disk


def state(step, **tensors):
    other = {part: {} for part in ("config", "data", "average", "optimizer", "scaler")}
    return {**other, "ghn": tensors, "progress": {"step": step}}


def test_the_last_ones_are_kept(tmp_path):
    folder = tmp_path / "new" / "checkpoints"
    assert checkpoint_paths(folder) == []
    for step in (0, 700, 80, 9, 1000):
        write_checkpoint(folder, state(step, weight=torch.tensor([step, 3])), keep=3)
    names = ["step-000000080.pt", "step-000000700.pt", "step-000001000.pt"]
    assert [path.name for path in checkpoint_paths(folder)] == names == sorted(os.listdir(folder))
    assert read_training_checkpoint(folder / names[1])["ghn"]["weight"].tolist() == [700, 3]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, state(5), keep=1)
    before = (tmp_path / "step-000000005.pt").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for step in (5, 7):
        with pytest.raises(CheckpointError, match=rf"step-00000000{step}\.pt.*No space left on device.*as they were"):
            write_checkpoint(tmp_path, state(step), keep=1)
    assert os.listdir(tmp_path) == ["step-000000005.pt"]
    assert (tmp_path / "step-000000005.pt").read_bytes() == before


@pytest.mark.parametrize("size", [7, 7_000, 700_000])
def test_why_torch_could_not_write(tmp_path, size):
    write_checkpoint(tmp_path, state(5, weight=torch.ones(3)), keep=1)
    before = (tmp_path / "step-000000005.pt").read_bytes()
    with (
        small_disk(),
        pytest.raises(CheckpointError, match=r"^cannot write .*step-000000007\.pt: \[Errno 27\] File too large; older"),
    ):
        write_checkpoint(tmp_path, state(7, weight=torch.ones(size)), keep=1)
    assert os.listdir(tmp_path) == ["step-000000005.pt"]
    assert (tmp_path / "step-000000005.pt").read_bytes() == before


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    "content", [b"", b"damaged" * 99, {"ghn": {}}, Evil()], ids=["empty", "damaged", "other", "evil"]
)
def test_files_that_are_no_checkpoints(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "step-000000005.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"step-000000005\.pt") as error:
        read_training_checkpoint(path)
    assert "weights_only" not in str(error.value)
    assert os.listdir(tmp_path) == ["step-000000005.pt"]


def row(step, loss=2.5):
    return LogRow(step, step / 4, loss, 0.25, 1.5, 1e-3, 1.0, 3, 0, 0.5, 8)


def test_a_log_goes_on_with_a_step(tmp_path):
    path = tmp_path / "log.csv"
    with CSVLog(path, 0) as log:
        for step in range(5):
            log.write(row(step))
        assert len(read_log(path)) == 5  # before it is closed
    with open(path, "a") as stream:
        stream.write("5,1.2")  # the process ended within a row
    with CSVLog(path, 3) as log:
        log.write(row(3, loss=1.5))
    rows = read_log(path)
    assert [one["step"] for one in rows] == [0, 1, 2, 3]
    assert [one["loss"] for one in rows] == [2.5, 2.5, 2.5, 1.5]
    assert path.read_text().splitlines()[0].startswith("step,epoch,loss,top1,norm")
