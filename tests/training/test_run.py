import json
import math
import os
import sys

import pytest
import torch
from safetensors import safe_open

from ghn_pyg import from_pretrained
from ghn_pyg.data import load_images
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.families.deepnets.meta_batches import MetaBatches
from ghn_pyg.training import Run, TrainingError, train
from ghn_pyg.training import run as run_module
from ghn_pyg.training.checkpoints import checkpoint_paths, read_checkpoint
from ghn_pyg.training.fabric import make_fabric
from ghn_pyg.training.learning_rate import learning_rate
from ghn_pyg.training.logs import read_log
from tests.training.tiny import CONFIG, assert_equal, config, digits, ghn_config, losses, run

pytestmark = pytest.mark.usefixtures("small_architectures")


def test_files_of_a_run(whole):
    folder, weights = whole
    assert sorted(os.listdir(folder)) == [".lock", "best", "checkpoints", "ghn", "log.csv", "tensorboard", "train.json"]
    assert [path.name for path in checkpoint_paths(folder / "checkpoints")] == [
        "step-000000006.pt", "step-000000009.pt", "step-000000010.pt"
    ]  # fmt: skip
    saved = json.loads((folder / "train.json").read_text())
    trained_for = saved["ghn"].pop("trained_for")
    assert saved == CONFIG.to_dict()
    assert (trained_for["data"], trained_for["image_size"], trained_for["widths"]) == ("digits", 8, [8])
    assert_equal(dict(from_pretrained(folder / "ghn").state_dict()), weights)
    for name in ("best", "ghn", "checkpoints/step-000000010.pt"):
        assert from_pretrained(folder / name).config.to_dict() == {**CONFIG.ghn.to_dict(), "trained_for": trained_for}
    rows = read_log(folder / "log.csv")
    assert [row["step"] for row in rows] == list(range(10))
    assert [row["rate"] for row in rows] == pytest.approx([learning_rate(CONFIG, step, 3) for step in range(10)])
    assert [row["epoch"] for row in rows] == pytest.approx([step / 3 for step in range(10)])
    assert all(2 < row["loss"] < 3 and row["norm"] > 0 and not row["skipped"] for row in rows)


def test_the_best_ghn_has_the_lowest_mean_loss_between_checkpoints(whole):
    folder, _ = whole
    logged = losses(folder)
    means = [sum(logged[start : start + 3]) / 3 for start in (0, 3, 6)]
    progress = read_checkpoint(folder / "checkpoints" / "step-000000010.pt")["progress"]
    assert progress["best"] == pytest.approx(min(means), rel=1e-12)
    assert (progress["loss_sum"], progress["loss_count"], progress["skipped"]) == (logged[9], 1, 0)


def test_checkpoints_of_whole_epochs_stay(whole, tmp_path):
    weights = run(tmp_path, 9, {"epoch_steps": 2, "epochs": 5, "keep_every": 2, "keep": 1})
    assert [path.name for path in checkpoint_paths(tmp_path / "checkpoints")] == [
        "step-000000004.pt", "step-000000008.pt", "step-000000009.pt"
    ]  # fmt: skip
    rows = read_log(tmp_path / "log.csv")
    assert [row["epoch"] for row in rows] == [step / 2 for step in range(9)]
    assert rows[-1]["rate"] == pytest.approx(4e-4 * (1 + math.cos(math.pi * 0.8)) / 2)
    assert losses(tmp_path)[0] == losses(whole[0])[0]
    assert weights.keys() == whole[1].keys()


def test_architectures_of_another_split_or_only_a_few(tmp_path):
    fabric = make_fabric(device="cpu")
    few = Run(config(networks=3), tmp_path, fabric, digits()).architectures_from(0)
    genotypes = [architecture.genotype for step in range(3) for architecture in few.architectures(step)]
    assert genotypes[:3] == genotypes[3:]
    dense = Run(config(split="dense"), tmp_path, fabric, digits()).architectures_from(0).architectures(0)
    expected = DeepNets("dense", seed=3)
    assert [each.genotype for each in dense] == [expected[index].architecture.genotype for index in range(2)]


def test_while_networks_grow_the_newest_ghn_is_best(tmp_path):
    run(tmp_path, 6, {"curriculum": 0.5})
    newest = read_checkpoint(tmp_path / "checkpoints" / "step-000000006.pt")
    assert newest["progress"]["best"] is None
    assert_equal(dict(from_pretrained(tmp_path / "best").state_dict()), newest["ghn"])


def test_held_out_images_choose_the_best_ghn(tmp_path, monkeypatch):
    """Of the regular checkpoints, not of one that is written because the run is stopped."""
    found = iter([0.25, 0.5, 0.375])
    seen = []

    def validate(ghn, networks, images):
        seen.append((len(networks), len(images.train), len(images.test), ghn.state_dict()["norm.weight"].clone()))
        return next(found)

    monkeypatch.setattr(run_module, "validate", validate)
    for steps in (4, 10):
        run(tmp_path, steps, {"held_out": 0.1, "curriculum": 1.0})
    assert [sizes[:3] for sizes in seen] == [(4, 50, 5)] * 3
    rows = read_log(tmp_path / "log.csv")
    assert {row["step"]: row["val_top1"] for row in rows if row["val_top1"] > 0} == {2: 0.25, 5: 0.5, 8: 0.375}
    best = from_pretrained(tmp_path / "best")
    assert torch.equal(best.norm.weight, seen[1][3])
    assert best.config.trained_for.held_out == 0.1
    with safe_open(tmp_path / "best" / "model.safetensors", "pt") as file:
        assert (file.metadata()["step"], file.metadata()["val_top1"]) == ("6", "0.5")
    assert read_checkpoint(tmp_path / "checkpoints" / "step-000000010.pt")["progress"]["best"] == 0.5


def test_clipping(tmp_path):
    loose, free = run(tmp_path / "loose", 2, {"clip": 1e9}), run(tmp_path / "free", 2, {"clip": 0.0})
    assert_equal(loose, free)
    tight = run(tmp_path / "tight", 2, {"clip": 1e-3})
    assert any(not torch.equal(tight[name], free[name]) for name in free)


def test_the_average_of_weights_is_the_trained_ghn(tmp_path):
    trained = run(tmp_path, 4, {"ema": 0.25, "checkpoint_every": 1, "keep": 9})
    states = [read_checkpoint(path)["ghn"] for path in checkpoint_paths(tmp_path / "checkpoints")]
    for name, value in trained.items():
        average = states[1][name]
        for state, decay in zip(states[2:], (2 / 11, 0.25, 0.25), strict=True):  # 2 / 11, 3 / 12, then 4 / 13 > 0.25
            average = decay * average + (1 - decay) * state[name]
        torch.testing.assert_close(value, average)
    assert_equal(dict(from_pretrained(tmp_path / "ghn").state_dict()), trained)
    assert any(not torch.equal(value, states[-1][name]) for name, value in trained.items())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_change_nothing(whole, tmp_path):
    assert_equal(run(tmp_path, 10, workers=1), whole[1])


def test_training_lowers_the_loss(tmp_path):
    threes = digits()
    threes.train.labels.fill_(3)
    run(tmp_path, 26, {"learning_rate": 1e-2, "penalty": 0.0}, images=threes)
    logged = losses(tmp_path)
    assert logged[0] > 2.2
    assert logged[-1] < 1.9
    assert read_log(tmp_path / "log.csv")[-1]["top1"] == 1


def test_the_recipe_of_ghn2(tmp_path):
    ghn2 = ghn_config(encoder="ghn2", layers=0, heads=0, kernel_crop="corner")
    run(tmp_path, 4, {"ghn": ghn2, "optimizer": "adam", "schedule": "steps", "milestones": (1,)})
    assert [row["rate"] for row in read_log(tmp_path / "log.csv")] == pytest.approx([4e-4] * 3 + [4e-5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ghn": ghn_config(num_classes=7)}, "the GHN is for 7 classes and digits has 10; set ghn.num_classes"),
        ({"batch_size": 56}, "must not exceed the 55 training images, got 56"),
    ],
)
def test_a_configuration_that_does_not_fit_the_data(tmp_path, changes, message):
    with pytest.raises(TrainingError, match=message):
        run(tmp_path / "new", 3, changes)
    assert not (tmp_path / "new").exists()


def test_images_by_name(tmp_path):
    ghn = train(config(batch_size=64), tmp_path, fabric=make_fabric(device="cpu"), steps=1)
    assert not ghn.training
    resumed = Run(config(batch_size=64), tmp_path, make_fabric(device="cpu"), load_images("digits", image_size=8))
    assert (resumed.length, resumed.state.progress.step) == (10 * (1442 // 64), 1)
    assert isinstance(resumed.architectures_from(3), MetaBatches)


def test_global_generators_stay(tmp_path):
    state = torch.get_rng_state()
    for steps in (1, 2):  # the second run resumes the first
        run(tmp_path, steps)
        assert torch.equal(torch.get_rng_state(), state)


def test_without_fabric(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ImportError, match=r'pip install "ghn_pyg\[train\]"'):
        make_fabric()
