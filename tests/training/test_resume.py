import dataclasses
import json
import os
import shutil
import signal
import time

import pytest
import torch
from filelock import FileLock

from ghn_pyg import CheckpointError, from_pretrained
from ghn_pyg.families.deepnets.width_sampling import WidthRule
from ghn_pyg.training import Run, TrainingError, checkpoints
from ghn_pyg.training.checkpoints import checkpoint_paths, read_checkpoint
from ghn_pyg.training.fabric import make_fabric
from tests.cli.outcomes import small_disk
from tests.training.tiny import CONFIG, assert_equal, config, digits, ghn_config, losses, run, start

pytestmark = pytest.mark.usefixtures("small_architectures")


@pytest.mark.parametrize("stops", [[4, 5], range(1, 10)], ids=str)
def test_resume_is_bit_exact(whole, tmp_path, stops):
    for stop in stops:
        run(tmp_path, stop)
    assert_equal(run(tmp_path, 10), whole[1])
    assert losses(tmp_path) == losses(whole[0])
    first, second = (read_checkpoint(path / "checkpoints" / "step-000000010.pt") for path in (whole[0], tmp_path))
    assert first["progress"] == second["progress"]
    assert_equal(*(dict(from_pretrained(path / "best").state_dict()) for path in (whole[0], tmp_path)))


def test_resume_with_all_options_is_bit_exact(tmp_path):
    changes = {"curriculum": 0.5, "calibrate": True, "balance": True, "ema": 0.5}
    whole = run(tmp_path / "whole", 7, changes)
    for stop in (2, 3):
        run(tmp_path / "parts", stop, changes)
    assert_equal(run(tmp_path / "parts", 7, changes), whole)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch reads it as it compiles
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_compiled_run_is_saved_and_resumed(tmp_path, monkeypatch, ema):
    compiled = []

    def quickly(function):
        compiled.append(function)
        return torch._dynamo.optimize("eager")(function)

    monkeypatch.setattr(torch, "compile", quickly)
    # Compilers use the formula of attention, so that the other run has to: Adam amplifies the last digit.
    monkeypatch.setattr("ghn_pyg.nn.cpu_table_attention.supports", lambda *_, **__: False)
    expected = run(tmp_path / "plain", 2, {"ema": ema})
    assert not compiled
    changes = {"compile": True, "ema": ema}
    run(tmp_path / "compiled", 1, changes)
    weights = run(tmp_path / "compiled", 2, changes)
    assert len(compiled) == 2
    torch.testing.assert_close(weights, expected)
    for name in ("ghn", "average"):
        state = read_checkpoint(tmp_path / "compiled" / "checkpoints" / "step-000000002.pt")[name]
        assert not [key for key in state if "_orig_mod" in key]


def test_a_run_that_started_from_a_ghn_resumes_without_it(whole, tmp_path):
    shutil.copytree(whole[0] / "ghn", tmp_path / "before")
    changes = {"start": str(tmp_path / "before")}
    expected = run(tmp_path / "one", 5, changes)
    run(tmp_path / "two", 3, changes)
    shutil.rmtree(tmp_path / "before")
    assert_equal(run(tmp_path / "two", 5, changes), expected)


LONG = {"epochs": 1000, "keep": 999}  # no child finishes, and none loses a checkpoint that is needed


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("steps", "limits"), [(15, [5, 12]), pytest.param(60, [15, 55], marks=pytest.mark.exhaustive)])
def test_resume_after_a_kill_is_bit_exact(tmp_path, steps, limits):
    """The run is killed once for each limit, at a random step below it."""
    expected = run(tmp_path / "whole", steps, LONG)
    folder, kills = tmp_path / "killed", []
    for limit in limits:
        after = int.from_bytes(os.urandom(2)) % limit
        process = start(run, folder, 10_000, LONG)
        log = folder / "log.csv"
        while process.is_alive() and (not log.exists() or log.read_text().count("\n") <= after + 1):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills.append((after, len(log.read_text().splitlines()) - 1))
        assert process.exitcode == -signal.SIGKILL, kills
        for later in checkpoint_paths(folder / "checkpoints"):
            if later.name > f"step-{steps:09d}.pt":
                later.unlink()
    (folder / "checkpoints" / f".{'0a' * 16}.pt").touch()  # as if it had been killed while it wrote
    assert_equal(run(folder, steps, LONG), expected)
    assert losses(folder) == losses(tmp_path / "whole"), kills
    assert [path.name for path in folder.rglob(".*") if path.is_file()] == [".lock"]


def test_a_full_disk_leaves_the_run_unchanged(tmp_path, whole):
    run(tmp_path, 5)
    before = checkpoint_paths(tmp_path / "checkpoints")
    with small_disk(20_000), pytest.raises(CheckpointError, match="File too large"):
        run(tmp_path, 10)
    assert checkpoint_paths(tmp_path / "checkpoints") == before
    assert_equal(run(tmp_path, 10), whole[1])


def test_another_run_in_the_folder(tmp_path):
    run(tmp_path, 1)
    before = sorted(path.read_bytes() for path in tmp_path.rglob("*.*"))
    with pytest.raises(TrainingError, match=r"has another run, which differs in learning_rate, seed; use another"):
        run(tmp_path, 3, {"seed": 5, "learning_rate": 0.1})
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*.*")) == before


def test_another_process_in_the_folder(tmp_path, monkeypatch):
    run(tmp_path, 2)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(checkpoints, "LOCK_TIMEOUT", 0.1)
    with FileLock(tmp_path / ".lock"), pytest.raises(TrainingError, match=r"another process trains in .*use another"):
        run(tmp_path, 4)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files


def test_fields_that_may_change(tmp_path, whole):
    run(tmp_path, 1)
    changes = {"images": "/elsewhere/digits", "folder": "elsewhere", "download": True, "keep": 2,
               "checkpoint_every": 1, "node_budget": 3_000, "widths": WidthRule(widths=(8, 16))}  # fmt: skip
    run(tmp_path, 4, changes)
    assert losses(tmp_path)[0] == losses(whole[0])[0]
    assert losses(tmp_path)[1:] != losses(whole[0])[1:4]  # of other widths
    assert json.loads((tmp_path / "ghn" / "config.json").read_text())["trained_for"]["widths"] == [8, 16]
    assert [path.name for path in checkpoint_paths(tmp_path / "checkpoints")] == [
        "step-000000003.pt", "step-000000004.pt"
    ]  # fmt: skip
    assert json.loads((tmp_path / "train.json").read_text())["folder"] == "elsewhere"


def test_a_run_of_an_older_version_is_resumed(tmp_path, whole):
    """Its configuration and its checkpoint do not have all fields."""
    run(tmp_path, 4)
    older = {name: value for name, value in CONFIG.to_dict().items() if name not in ("skip_damaged", "balance")}
    (tmp_path / "train.json").write_text(json.dumps(older))
    path = tmp_path / "checkpoints" / "step-000000004.pt"
    values = read_checkpoint(path)
    for name in ("good_in_a_row", "left_out", "source"):
        del values["progress"][name]
    torch.save({**values, "config": older}, tmp_path / "older.pt")  # the tensors lie in the first file
    (tmp_path / "older.pt").replace(path)
    assert_equal(run(tmp_path, 10), whole[1])


@pytest.mark.parametrize(("text", "reason"), [('{"seed": ', "Expecting value"), ("[3]", r"expected fields, got \[3\]")])
def test_a_damaged_configuration(tmp_path, text, reason):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(TrainingError, match=rf"cannot read the configuration of the run, .*train\.json: {reason}"):
        run(tmp_path, 1)


def test_a_checkpoint_of_another_run(tmp_path):
    run(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"on digits, 55 images of 10 classes, not on digits, 53 images of 10 "):
        run(tmp_path, 3, images=digits(53))
    with pytest.raises(CheckpointError, match=r"not on letters, 55 images of 10 classes"):
        run(tmp_path, 3, {"images": "letters"}, images=dataclasses.replace(digits(), name="letters"))
    (tmp_path / "train.json").unlink()
    with pytest.raises(CheckpointError, match=r"is of another run: it differs in batch_size, seed$"):
        run(tmp_path, 3, {"seed": 5, "batch_size": 8})
    with pytest.raises(CheckpointError, match=r"step-000000001\.pt is of another run"):
        run(tmp_path, 3, {"ghn": ghn_config(hidden_channels=12)})


def test_13_images_and_architectures_continue_within_an_epoch(tmp_path):
    whole = Run(CONFIG, tmp_path, make_fabric(device="cpu"), digits())
    expected = [batch for _, batch in zip(range(6), whole.batches(0), strict=False)]
    assert len({images.sum().item() for _, (images, _) in expected}) == 6
    for stop in (2, 4):  # an epoch has three steps
        run(tmp_path, stop)
        resumed = Run(config(), tmp_path, make_fabric(device="cpu"), digits())
        for (meta_batch, batch), (architectures, images) in zip(expected[stop:], resumed.batches(0), strict=False):
            assert meta_batch.step == architectures.step
            assert [part.architecture for part in meta_batch.parts] == [
                part.architecture for part in architectures.parts
            ]
            assert all(map(torch.equal, batch, images))
