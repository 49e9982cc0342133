import json
import re

import torch

from ghn_pyg import from_pretrained
from ghn_pyg.training import run as run_module
from ghn_pyg.training.config import recipe_names
from ghn_pyg.training.logs import read_log
from tests.cli.outcomes import failed


def test_a_run_is_trained_and_resumed(run, recipe, tmp_path):
    folder = tmp_path / "run"
    options = ("train", recipe, "--out", folder, "--device", "cpu", "-s", "seed=5")
    code, out, err = run(*options, "--steps", 2)
    assert code == 0
    line = r"^epoch 0\.01 of 10, step 2  loss \d\.\d+  top-1 \d+\.\d%  [\d.]+ arch/s, \d+ min left$"
    assert re.search(line, err, re.M)
    assert out[1] == "steps 2"
    assert out[-2:] == [f"saved {folder}/ghn, the last one, after 2 steps", f"log {folder}/log.csv"]
    code, out, _ = run(*options, "--steps", 3)
    assert (code, out[1]) == (0, "steps 3")
    assert [row["step"] for row in read_log(folder / "log.csv")] == [0, 1, 2]
    assert json.loads((folder / "train.json").read_text())["seed"] == 5
    assert from_pretrained(folder / "ghn").config.hidden_channels == 8
    code, out, _ = run(*options, "--steps", 3)
    assert (code, out[1]) == (0, "steps already complete")
    assert "differs in seed" in failed(run(*options[:-1], "seed=7"))


def test_a_run_starts_from_a_ghn_for_other_classes(run, recipe, ghn, tmp_path):
    options = ("train", recipe, "--device", "cpu", "-s", f"start={ghn}", "-s", "ghn.max_kernel_size=16")
    for steps in (1, 2):
        code, out, _ = run(*options, "--out", tmp_path / "run", "--steps", steps)
        assert code == 0
        source = f"all weights of {ghn}, which is for 1,000 classes, but those of the classification layer"
        assert f"started from {source}" in out


def test_skipped_steps_and_networks_that_do_not_fit_stand_in_the_summary(run, recipe, tmp_path, monkeypatch):
    original = run_module.meta_gradient

    def spoiled(ghn, meta_batch, *batch, **options):
        shares = original(ghn, meta_batch, *batch, **options)
        if meta_batch.step < 2:
            shares[meta_batch.step * 3] = torch.nan if meta_batch.step == 0 else 1  # without a loss; too large
        return shares

    monkeypatch.setattr(run_module, "meta_gradient", spoiled)
    code, out, _ = run("train", recipe, "--out", tmp_path / "run", "--device", "cpu", "--steps", 5)
    assert code == 0
    assert "skipped 2 of 5 steps, as losses or gradients were not finite; 0 roll-backs" in out
    assert "left out 1 network, as memory did not suffice" in out
    assert f"saved {tmp_path}/run/ghn, the last one, after 5 steps" in out
    code, out, err = run("train", recipe, "--out", tmp_path / "bad", "--device", "cpu", "--steps", 3)
    assert (code, out) == (2, [])
    assert "2 of 3 steps were skipped" in err
    assert "resume with smaller widths, as 1 times a network did not fit into memory, or lower learning_rate" in err


def test_a_fast_dev_run_saves_nothing(run, recipe, tmp_path):
    code, out, _ = run("train", recipe, "--fast-dev-run", "--device", "cpu", "--out", tmp_path / "run")
    assert (code, out[1]) == (0, "steps 3")
    assert out[-1] == f"saved nothing in {tmp_path}/run, because of --fast-dev-run"
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_says_how_to_resume(run, recipe, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run_training", interrupted)
    code, _, err = run("train", recipe, "--device", "cpu", "--out", tmp_path / "run")
    assert code == 130
    assert f"Stopped. The same command resumes from the last checkpoint in {tmp_path}/run." in err


def test_recipes_are_listed_with_what_they_cost(run):
    code, out, _ = run("train", "--list")
    rows = [line for line in out if line.startswith(("digits", "ghn", "mlp"))]
    assert code == 0
    assert [row.split()[0] for row in rows] == recipe_names()
    assert "digits-small 600,608 3,560 19 min 1.2 GB" in rows
    assert "ghn3-t-cifar10 4,531,500 210,900 12 days 1.7 GB" in rows
    assert any(re.fullmatch(r"ghn3-xl-imagenet 654,365,184 675,600 > \d+ days > 12 GB", row) for row in rows)
