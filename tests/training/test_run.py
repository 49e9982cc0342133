import dataclasses
import json
import logging
import os
import shutil
import signal
import sys
import time

import pytest
import torch
from filelock import FileLock
from ghn_pyg.graph.arch_data.images import load_images

from ghn_pyg import GHN, CheckpointError, from_pretrained
from ghn_pyg.families.deepnets.dataset import MetaBatches
from ghn_pyg.training import run as module
from ghn_pyg.training import run_folder as folder_module
from ghn_pyg.training.checkpoints import checkpoint_paths, read_training_checkpoint
from ghn_pyg.training.fabric import make_fabric
from ghn_pyg.training.load_config import load_config
from ghn_pyg.training.logs import read_log
from ghn_pyg.training.run import Run, train
from ghn_pyg.training.run_folder import TrainingError
from ghn_pyg.training.schedules import learning_rate
from tests.cli.outcomes import small_disk
from tests.training.tiny import CONFIG, config, digits, losses, run, same, start

logging.getLogger("lightning_fabric").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 10 steps that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, 10)


def test_what_a_run_writes(whole):
    folder, weights = whole
    assert sorted(os.listdir(folder)) == [".lock", "best", "checkpoints", "ghn", "log.csv", "tensorboard", "train.json"]
    assert [path.name for path in checkpoint_paths(folder / "checkpoints")] == [
        "step-000000006.pt", "step-000000009.pt", "step-000000010.pt"
    ]  # fmt: skip
    assert json.loads((folder / "train.json").read_text()) == CONFIG.to_dict()
    same(dict(from_pretrained(folder / "ghn").state_dict()), dict(weights))
    assert from_pretrained(folder / "best").config == CONFIG.ghn
    rows = read_log(folder / "log.csv")
    assert [row["step"] for row in rows] == list(range(10))
    assert [row["rate"] for row in rows] == pytest.approx([learning_rate(CONFIG, step, 3) for step in range(10)])
    assert [row["epoch"] for row in rows] == pytest.approx([step / 3 for step in range(10)])
    assert all(2 < row["loss"] < 3 and row["norm"] > 0 and not row["skipped"] for row in rows)


def test_the_best_one_has_the_lowest_mean_loss_between_checkpoints(whole):
    folder, _ = whole
    found = losses(folder)
    means = [sum(found[start : start + 3]) / 3 for start in (0, 3, 6)]
    progress = read_training_checkpoint(folder / "checkpoints" / "step-000000010.pt")["progress"]
    assert progress["best"] == pytest.approx(min(means), rel=1e-12)
    assert (progress["loss_sum"], progress["loss_count"], progress["skipped"]) == (found[9], 1, 0)


def test_stopping_does_not_change_which_one_is_best(whole, tmp_path):
    for stop in range(1, 11):
        run(tmp_path, stop)
    states = [
        read_training_checkpoint(folder / "checkpoints" / "step-000000010.pt")["progress"]
        for folder in (whole[0], tmp_path)
    ]
    assert states[0] == states[1]
    same(dict(from_pretrained(whole[0] / "best").state_dict()), dict(from_pretrained(tmp_path / "best").state_dict()))


def test_while_networks_grow_the_newest_one_is_best(tmp_path):
    run(tmp_path, 6, {"curriculum": 0.5})
    newest = read_training_checkpoint(tmp_path / "checkpoints" / "step-000000006.pt")
    assert newest["progress"]["best"] is None
    same(dict(from_pretrained(tmp_path / "best").state_dict()), newest["ghn"])


EARLY = {"curriculum": 0.5, "calibrate": True, "balance": True, "ema": 0.5}


def test_a_run_with_all_that_helps_goes_on_too(tmp_path):
    whole = run(tmp_path / "whole", 7, EARLY)
    for stop in (2, 3):
        run(tmp_path / "parts", stop, EARLY)
    same(run(tmp_path / "parts", 7, EARLY), whole)
    assert all(not row["left_out"] for row in read_log(tmp_path / "whole" / "log.csv"))


def test_a_step_without_any_network_is_skipped(tmp_path):
    one = Run(config(balance=True), tmp_path, make_fabric(device="cpu"), digits())
    with torch.no_grad():
        one.ghn.decoder.weight.last_layers()[0].weight.fill_(torch.nan)
    before = [parameter.clone() for parameter in one.ghn.parameters()]
    one.folder.mkdir(exist_ok=True)
    row = one.step(*next(one.batches(0)), began=time.perf_counter())
    assert (row.left_out, row.skipped, row.loss) == (2, 1, 10)
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(before, one.ghn.parameters(), strict=True))
    assert one.progress.skipped == 1


def test_no_clipping(tmp_path):
    plain, free = run(tmp_path / "plain", 2, {"clip": 1e9}), run(tmp_path / "free", 2, {"clip": 0.0})
    same(plain, free)
    tight = run(tmp_path / "tight", 2, {"clip": 1e-3})
    assert any(not torch.equal(tight[name], free[name]) for name in free)


def test_the_average_of_weights_is_what_was_trained(tmp_path):
    changes = {"ema": 0.25, "checkpoint_every": 1, "keep": 9}
    trained = run(tmp_path / "whole", 4, changes)
    states = [read_training_checkpoint(path)["ghn"] for path in checkpoint_paths(tmp_path / "whole" / "checkpoints")]
    for name, came in trained.items():
        average = states[1][name]
        for state, decay in zip(states[2:], (2 / 11, 0.25, 0.25), strict=True):  # 2 / 11, 3 / 12, then 4 / 13 > 0.25
            average = decay * average + (1 - decay) * state[name]
        torch.testing.assert_close(came, average)
    same(dict(from_pretrained(tmp_path / "whole" / "ghn").state_dict()), dict(trained))
    assert any(not torch.equal(came, states[-1][name]) for name, came in trained.items())
    run(tmp_path / "parts", 2, changes)
    same(run(tmp_path / "parts", 4, changes), trained)


@pytest.mark.parametrize("steps", [[1], [4, 5], [9]])
def test_a_run_goes_on_as_if_it_had_never_stopped(whole, tmp_path, steps):
    for stop in steps:
        run(tmp_path, stop)
    same(run(tmp_path, 10), whole[1])
    assert losses(tmp_path) == losses(whole[0])


LONG = {"epochs": 1000, "keep": 999}  # no child finishes, and none loses a checkpoint that is needed


def kill_and_go_on(tmp_path, steps, limits):
    """Compares a whole run with one that is killed once for each limit, at a random step below it."""
    expected = run(tmp_path / "whole", steps, LONG)
    folder, kills = tmp_path / "killed", []
    for limit in limits:
        after = int.from_bytes(os.urandom(2)) % limit  # any step will do
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
    same(run(folder, steps, LONG), expected)
    assert losses(folder) == losses(tmp_path / "whole"), kills
    assert [path.name for path in folder.rglob(".*") if path.is_file()] == [".lock"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_run_goes_on_as_if_it_had_never_stopped(tmp_path):
    kill_and_go_on(tmp_path, 15, [5, 12])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_long_run_that_is_killed_again_and_again(tmp_path):
    kill_and_go_on(tmp_path, 200, [40, 120, 190])


def test_images_and_architectures_go_on_in_mid_epoch(tmp_path, monkeypatch):
    seen = []
    original = module.meta_gradient

    def spy(ghn, meta_batch, images, labels, **options):
        seen.append((meta_batch.step, [part.architecture for part in meta_batch.parts], images.sum().item()))
        return original(ghn, meta_batch, images, labels, **options)

    monkeypatch.setattr(module, "meta_gradient", spy)
    run(tmp_path / "whole", 6)
    expected, seen[:] = seen[:], []
    for stop in (2, 4, 6):  # an epoch has three steps
        run(tmp_path / "parts", stop)
    assert seen == expected
    assert len({images for _, _, images in seen}) == 6


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_change_nothing(whole, tmp_path):
    same(run(tmp_path, 10, workers=1), whole[1])


def test_training_lowers_the_loss(tmp_path):
    threes = digits()
    threes.train.labels.fill_(3)
    run(tmp_path, 26, {"learning_rate": 1e-2, "penalty": 0.0}, images=threes)
    found = losses(tmp_path)
    assert found[0] > 2.2
    assert found[-1] < 1.9
    assert read_log(tmp_path / "log.csv")[-1]["top1"] == 1


@pytest.mark.parametrize("changes", [{"optimizer": "adam", "schedule": "steps", "milestones": (1,)}])
def test_other_recipes(tmp_path, changes):
    ghn2 = dataclasses.replace(CONFIG.ghn, encoder="ghn2", layers=0, heads=0, kernel_crop="corner")
    run(tmp_path, 4, {"ghn": ghn2, **changes})
    assert [row["rate"] for row in read_log(tmp_path / "log.csv")] == pytest.approx([4e-4] * 3 + [4e-5])


# --- what is wrong is said before anything runs ----------------------------------------------------------------------


def test_another_number_of_classes(tmp_path):
    other = dataclasses.replace(CONFIG.ghn, num_classes=7)
    with pytest.raises(TrainingError, match=r"the GHN is for 7 classes and digits has 10; set ghn.num_classes"):
        run(tmp_path / "new", 3, {"ghn": other})
    assert not (tmp_path / "new").exists()


def test_a_batch_larger_than_the_data(tmp_path):
    with pytest.raises(TrainingError, match="must not exceed the 55 training images, got 56"):
        run(tmp_path / "new", 3, {"batch_size": 56})


def test_another_run_in_the_folder(tmp_path):
    run(tmp_path, 1)
    before = sorted(path.read_bytes() for path in tmp_path.rglob("*.*"))
    with pytest.raises(TrainingError, match=r"holds another run, which differs in learning_rate, seed; take another"):
        run(tmp_path, 3, {"seed": 5, "learning_rate": 0.1})
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*.*")) == before


def test_another_process_in_the_folder(tmp_path, monkeypatch):
    before = run(tmp_path, 2)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(folder_module, "_PATIENCE", 0.1)
    with FileLock(tmp_path / ".lock"), pytest.raises(TrainingError, match=r"another process trains in .*take another"):
        run(tmp_path, 4)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files
    same(run(tmp_path, 2), before)


def test_another_process_went_on_with_the_run(tmp_path):
    run(tmp_path, 2)
    late = Run(CONFIG, tmp_path, make_fabric(device="cpu"), digits())
    expected = run(tmp_path, 5)
    with pytest.raises(TrainingError, match=r"another process has gone on with the run in .* start the same command"):
        late.go(9, 0, lambda row: None)
    same(run(tmp_path, 5), expected)
    assert len(losses(tmp_path)) == 5


def test_another_process_began_another_run(tmp_path):
    late = Run(CONFIG, tmp_path, make_fabric(device="cpu"), digits())
    run(tmp_path, 2, {"seed": 4})
    with pytest.raises(TrainingError, match="holds another run, which differs in seed"):
        late.go(9, 0, lambda row: None)


def test_how_data_is_kept_may_change(tmp_path):
    run(tmp_path, 1)
    changes = {"folder": "elsewhere", "download": True, "keep": 2, "checkpoint_every": 1, "node_budget": 3_000}
    run(tmp_path, 4, changes)
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == list(range(4))
    assert [path.name for path in checkpoint_paths(tmp_path / "checkpoints")] == [
        "step-000000003.pt", "step-000000004.pt"
    ]  # fmt: skip
    assert json.loads((tmp_path / "train.json").read_text())["folder"] == "elsewhere"


@pytest.mark.parametrize(("text", "reason"), [('{"seed": ', "Expecting value"), ("[3]", r"expected fields, got \[3\]")])
def test_a_damaged_configuration(tmp_path, text, reason):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(TrainingError, match=rf"cannot read the configuration of the run, .*train\.json: {reason}"):
        run(tmp_path, 1)


def test_a_checkpoint_of_another_ghn(tmp_path):
    run(tmp_path, 1)
    (tmp_path / "train.json").unlink()
    with pytest.raises(CheckpointError, match=r"step-000000001\.pt is of another run"):
        run(tmp_path, 3, {"ghn": dataclasses.replace(CONFIG.ghn, hidden_channels=12)})
    with pytest.raises(CheckpointError, match=r"is of another run: it differs in batch_size, learning_rate, seed$"):
        run(tmp_path, 3, {"learning_rate": 0.1, "seed": 5, "batch_size": 8})


def test_other_data(tmp_path):
    run(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"on digits, 55 images of 10 classes, not on digits, 53 images of 10 "):
        run(tmp_path, 3, images=digits(53))
    with pytest.raises(CheckpointError, match=r"not on letters, 55 images of 10 classes"):
        run(tmp_path, 3, {"images": "letters"}, images=dataclasses.replace(digits(), name="letters"))


def test_data_that_moved(tmp_path, whole):
    run(tmp_path, 2)
    same(run(tmp_path, 10, {"images": "/elsewhere/digits"}), whole[1])


def test_a_full_disk_leaves_the_run_as_it_was(tmp_path, whole):
    run(tmp_path, 5)
    before = checkpoint_paths(tmp_path / "checkpoints")
    with small_disk(20_000), pytest.raises(CheckpointError, match="File too large"):
        run(tmp_path, 10)
    assert checkpoint_paths(tmp_path / "checkpoints") == before
    same(run(tmp_path, 10), whole[1])


def test_without_fabric(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ImportError, match=r'pip install "ghn_pyg\[train\]"'):
        make_fabric()


# --- starting from a GHN ---------------------------------------------------------------------------------------------


def test_a_run_starts_from_the_weights_of_a_ghn(whole, tmp_path):
    trained = whole[0] / "ghn"
    first = Run(config(start=str(trained)), tmp_path, make_fabric(device="cpu"), digits()).ghn
    same(dict(first.state_dict()), dict(whole[1]))


def test_a_run_from_a_ghn_goes_on_without_it(whole, tmp_path):
    trained = GHN.from_pretrained(whole[0] / "ghn")
    trained.save_pretrained(tmp_path / "before")
    changes = {"start": str(tmp_path / "before")}
    expected = run(tmp_path / "one", 5, changes)
    run(tmp_path / "two", 3, changes)
    shutil.rmtree(tmp_path / "before")
    same(dict(run(tmp_path / "two", 5, changes)), dict(expected))
    assert any(not torch.equal(value, expected[name]) for name, value in trained.state_dict().items())


def test_a_ghn_of_another_configuration(whole, tmp_path):
    changes = {"start": str(whole[0] / "ghn"), "ghn": dataclasses.replace(CONFIG.ghn, layers=2)}
    with pytest.raises(
        CheckpointError, match=r"configuration differs in layers \(1, here 2\); set these fields of ghn"
    ):
        run(tmp_path, 1, changes)
    with pytest.raises(CheckpointError, match=r"'digit' is not a file or folder.*did you mean digits"):
        run(tmp_path, 1, {"start": "digit"})
    assert not list(tmp_path.iterdir())


def test_a_ghn_that_is_not_trained_yet(tmp_path):
    wide = load_config("digits-wide")
    with pytest.raises(CheckpointError) as error:
        run(tmp_path, 1, {"ghn": wide.ghn, "start": "nowhere/digits/ghn"})
    assert "Train that one first (`ghn-pyg train digits --out nowhere/digits`), or set start to" in str(error.value)
    with pytest.raises(CheckpointError, match="Train that one, or set start to one that is here, such as digits"):
        run(tmp_path, 1, {"start": "nowhere/mine/ghn"})


def test_images_by_name(tmp_path):
    ghn = train(config(batch_size=64), tmp_path, fabric=make_fabric(device="cpu"), steps=1)
    assert not ghn.training
    whole = Run(config(batch_size=64), tmp_path, make_fabric(device="cpu"), load_images("digits", image_size=8))
    assert (whole.length, whole.progress.step) == (10 * (1442 // 64), 1)
    assert isinstance(whole.architectures_from(3), MetaBatches)


def test_the_global_generator_stays(tmp_path):
    state = torch.get_rng_state()
    for steps in (1, 2):  # and where the run goes on
        train(CONFIG, tmp_path, fabric=make_fabric(device="cpu"), images=digits(), steps=steps)
        assert torch.equal(torch.get_rng_state(), state)


def test_tensorboard_shows_the_log(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = whole
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert shown == [(step, pytest.approx(loss)) for step, loss in enumerate(losses(folder))]
    assert {"top1", "norm", "rate"} <= set(events.Tags()["scalars"])


def test_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run(tmp_path, 1)
    assert len(losses(tmp_path)) == 1
    assert not (tmp_path / "tensorboard").exists()
