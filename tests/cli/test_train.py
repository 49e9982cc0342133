import json

from ghn_pyg import from_pretrained
from ghn_pyg.training import run as run_module
from ghn_pyg.training.config import recipe_names
from ghn_pyg.training.logs import read_log
from tests.cli.outcomes import failed


def test_a_run_is_trained_and_resumed(run, recipe, tmp_path):
    folder = tmp_path / "run"
    options = ("train", recipe, "--out", folder, "--device", "cpu", "-s", "seed=5")
    code, out, _ = run(*options, "--steps", 2)
    assert code == 0
    assert out[1] == "steps 2"
    assert out[-1] == f"saved {folder}/ghn, the log {folder}/log.csv"
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


def test_recipes_are_listed(run):
    assert run("train", "--list") == (0, recipe_names(), "")
