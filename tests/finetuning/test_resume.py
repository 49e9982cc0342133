import os
import shutil
import signal
import time

import pytest
import torch
from torch import nn

from ghn_pyg import CheckpointError
from ghn_pyg.families.deepnets import DeepNets
from ghn_pyg.families.deepnets.network import Network
from ghn_pyg.finetuning import FitConfig, fit
from ghn_pyg.models import recalibrate
from ghn_pyg.training import TrainingError
from ghn_pyg.training.checkpoints import checkpoint_paths
from ghn_pyg.training.fabric import make_fabric
from ghn_pyg.training.logs import read_log
from tests.cli.outcomes import small_disk
from tests.training.tiny import assert_equal, digits, start


class Stopped(Exception):
    """Stands for a kill."""


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(7 * 36, 10)
        return nn.Sequential(*layers)


def trained(folder, changes=None, stop=None, one=None, pause=0.0, **options):
    """Trains on 55 digits with 3 steps an epoch, and stops within a step if asked to."""
    torch.set_num_threads(1)
    one, images, epochs = one or network(), digits(), []

    def measure(epoch):
        recalibrate(one, [images.train.batch(range(55))[0]])
        return float(one.training is False) + epoch / 8, float("nan")

    def on_step(step, loss):
        time.sleep(pause)
        if step == stop:
            raise Stopped

    config = FitConfig(**{"epochs": 4, "batch_size": 17, "seed": 5, **(changes or {})})
    options = {"fabric": make_fabric(device="cpu"), "measure": measure, "progress": epochs.append, **options}
    one = fit(one, images, config, folder=folder, on_step=on_step, **options)
    return one.state_dict(), epochs


def figures(epochs):
    return [(epoch.epoch, repr(epoch.loss), repr(epoch.rate), epoch.val_top1) for epoch in epochs]


@pytest.mark.parametrize("changes", [
    {"mixup": 0.2, "cutmix": 1.0}, {"optimizer": "adamw", "learning_rate": 1e-3, "randaugment": 9},
    {"optimizer": "lamb", "warmup_epochs": 1.5, "cutout": 3},
], ids=lambda changes: changes.get("optimizer", "sgd"))  # fmt: skip
def test_resume_is_bit_exact(tmp_path, changes):
    whole, epochs = trained(None, changes)
    for stop in (1, 3, 4, 8, 12):
        with pytest.raises(Stopped):
            trained(tmp_path, changes, stop=stop)
    state, resumed = trained(tmp_path, changes)
    assert_equal(state, whole)
    assert figures(resumed) == figures(epochs)
    log = read_log(tmp_path / "log.csv")
    assert [row["epoch"] for row in log] == [0, 1, 2, 3, 4]
    assert [row["loss"] for row in log[1:]] == [epoch.loss for epoch in epochs[1:]]
    assert [row["seconds"] for row in log] == [epoch.seconds for epoch in resumed]
    assert [path.name for path in checkpoint_paths(tmp_path / "checkpoints")] == [
        "step-000000009.pt", "step-000000012.pt"
    ]  # fmt: skip
    again, _ = trained(tmp_path, changes, stop=1)  # nothing is left to do
    assert_equal(again, whole)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_resume_after_kills_is_bit_exact(tmp_path, kills):
    whole, epochs = trained(None)
    folder, moments = tmp_path / "run", []
    for _ in range(kills):
        process = start(trained, folder, None, None, None, 0.02)
        moments.append(int.from_bytes(os.urandom(2)) / 2**16 * 0.35)
        time.sleep(moments[-1])
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        names = [path.name for path in checkpoint_paths(folder / "checkpoints")]
        assert len(names) <= 2, moments
    state, resumed = trained(folder)
    assert_equal(state, whole)
    assert figures(resumed) == figures(epochs), moments
    assert [path.name for path in folder.rglob(".*") if path.is_file()] == [".lock"]


def test_a_network_whose_norms_have_no_statistics_before(tmp_path):
    def one():
        torch.manual_seed(3)
        architecture = DeepNets("test", num_classes=10, image_size=8, width=8)[0].architecture
        return Network(architecture, 10, 8)

    changes = {"epochs": 2, "drop_path": 0.3}
    whole, _ = trained(None, changes, one=one())
    with pytest.raises(Stopped):
        trained(tmp_path, changes, one=one(), stop=5)
    state, _ = trained(tmp_path, changes, one=one())
    assert_equal(state, whole)


def test_another_run_in_the_folder(tmp_path):
    trained(tmp_path, {"epochs": 1}, settings={"network": "first"})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(TrainingError, match="differs in epochs, learning_rate, network; use another name"):
        trained(tmp_path, {"epochs": 2, "learning_rate": 0.5}, settings={"network": "second"})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_a_damaged_checkpoint_can_be_removed(tmp_path):
    whole, _ = trained(tmp_path)
    path = checkpoint_paths(tmp_path / "checkpoints")[-1]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="remove it to resume from an older one"):
        trained(tmp_path)
    path.unlink()
    assert_equal(trained(tmp_path)[0], whole)


def test_a_full_disk_leaves_the_run_unchanged(tmp_path):
    whole, _ = trained(None)
    with pytest.raises(Stopped):
        trained(tmp_path, stop=7)
    before = checkpoint_paths(tmp_path / "checkpoints")
    with small_disk(9_000), pytest.raises(CheckpointError, match="File too large"):
        trained(tmp_path)
    assert checkpoint_paths(tmp_path / "checkpoints") == before
    assert_equal(trained(tmp_path)[0], whole)
    shutil.rmtree(tmp_path / "checkpoints")
    assert_equal(trained(tmp_path)[0], whole)  # starts anew, and cuts the log back
    assert len(read_log(tmp_path / "log.csv")) == 5


@pytest.mark.parametrize("stop", [4, 8])
def test_patience_keeps_the_best_network(tmp_path, stop):
    """The second of at most 9 epochs is the best one, and two later ones are not better, also after a stop."""
    seen, one = {}, network()

    def measure(epoch):
        seen[epoch] = {name: tensor.clone() for name, tensor in one.state_dict().items()}
        return {0: 0.9, 1: 0.3, 2: 0.7, 3: 0.7}.get(epoch, 0.5), 0.0

    changes, options = {"epochs": 9, "patience": 2}, {"measure": measure}
    whole, epochs = trained(None, changes, one=one, **options)
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2, 3, 4]
    assert_equal(dict(whole), seen[2])
    with pytest.raises(Stopped):
        trained(tmp_path, changes, stop=stop, **options)
    for _ in range(2):  # the second time nothing is left to do
        state, epochs = trained(tmp_path, changes, **options)
        assert len(epochs) == 5
        assert_equal(state, whole)


def test_patience_needs_a_measure():
    with pytest.raises(ValueError, match="patience expected 0 without measure, got 2"):
        trained(None, {"patience": 2}, measure=None)


def test_mixed_precision_resumes_exactly(tmp_path):
    def run(folder, stop=None):
        fabric = make_fabric("bf16-mixed", "cpu")
        return trained(folder, {"epochs": 2}, stop=stop, fabric=fabric)[0]

    whole = run(None)
    with pytest.raises(Stopped):
        run(tmp_path, 5)
    assert_equal(run(tmp_path), whole)
    assert not torch.equal(whole["0.weight"], trained(None, {"epochs": 2})[0]["0.weight"])
