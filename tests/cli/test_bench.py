import csv
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from ghn_pyg import register_encoder
from ghn_pyg.bench import property_prediction as properties
from ghn_pyg.models.encoders import ENCODERS
from tests.cli.outcomes import failed


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mine.yaml"
    tasks = "tasks: {long_range: {graphs: 24, epochs: 1, longest: 9}}"
    path.write_text(f"encoders: [mlp]\nseeds: [0, 1]\nhidden_channels: 8\nheads: 2\n{tasks}\n")
    return path


def test_encoders_are_compared(run, config, tmp_path):
    code, out, _ = run("bench", "encoders", config, "--out", tmp_path / "out", "-s", "encoders=[mlp, gcn]")
    assert code == 0
    assert any(line.startswith("long_range accuracy") for line in out)
    assert [line.split()[0] for line in out if "±" in line] == ["mlp", "gcn"]
    with open(tmp_path / "out" / "results.csv", encoding="utf-8", newline="") as stream:
        assert len(list(csv.reader(stream))) == 1 + 4


def test_kept_results_are_counted(run, config, tmp_path):
    assert "exist" not in run("bench", "encoders", config, "--out", tmp_path / "out", "-s", "seeds=[1]")[2]
    _, _, err = run("bench", "encoders", config, "--out", tmp_path / "out")
    notice = err.splitlines()[0]
    assert notice.startswith("1 of 2 results exist already")
    assert f"remove {tmp_path}/out/results/*/ENCODER and {tmp_path}/out/ghns/ENCODER-*" in notice


def test_the_help_has_an_example_that_runs(run, tmp_path, monkeypatch):
    code, out, _ = run("bench", "encoders", "--help")
    text = " ".join(" ".join(out).split())
    example = re.search(r"ghn-pyg (bench encoders --out runs/small .*?\}\}\")", text)[1]
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(*shlex.split(example), "-s", "tasks.cost.repeats=1")
    assert code == 0
    assert [line.split()[0] for line in out if line.startswith(("mlp", "gcn"))] == ["mlp", "gcn"]


def test_an_encoder_of_the_user(run, config, tmp_path, monkeypatch):
    (tmp_path / "my_encoder.py").write_text(
        "from ghn_pyg import register_encoder\n"
        "from ghn_pyg.nn import NodeMLP\n"
        "class Mine(NodeMLP):\n    '''Which a process that measures cost imports.'''\n"
        "register_encoder('mine', lambda config: Mine(config.hidden_channels), layers=False)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as in a console script
    run("bench", "encoders", config, "--out", "out", "-s", "seeds=[0]")
    try:
        changes = ("-s", "encoders=[mine]", "-s", "seeds=[0]", "-s", "tasks.cost={nodes: [5]}")
        code, out, _ = run("bench", "encoders", config, "--out", "out", *changes, "--import", "my_encoder")
    finally:
        ENCODERS.pop("mine", None)
        sys.modules.pop("my_encoder", None)
    assert code == 0
    assert [line.split()[0] for line in out if line.startswith(("mine", "mlp"))] == ["mlp", "mine", "mine"]
    summary = Path("out", "results.md").read_text()
    assert "\n| mine | " in summary
    assert "\n| mlp | " in summary


def test_an_encoder_that_fails(run, config, tmp_path):
    register_encoder("bad", lambda config: torch.nn.Linear(3, 5), layers=False)
    try:
        code, out, err = run("bench", "encoders", config, "--out", tmp_path, "-s", "encoders=[bad, mlp]")
    finally:
        del ENCODERS["bad"]
    assert code == 1
    assert [line.split(":")[0] for line in err.splitlines()] == [
        f"long_range, {encoder}, seed {seed}" for encoder in ("bad", "mlp") for seed in (0, 1)
    ]
    assert sum(line.startswith("failed: bad, seed ") for line in out) == 2
    assert any(line.startswith("mlp") and "±" in line for line in out)


def test_a_data_set_of_trained_networks(run, config, tmp_path, monkeypatch):
    monkeypatch.setattr(properties, "properties", lambda *arguments: dict.fromkeys(properties.PROPERTIES, 0.25))
    more = "tasks.properties={networks: 10, width: 8, recipe: digits, changes: [image_size=8]}"
    code, out, _ = run("bench", "networks", config, "--out", tmp_path / "out", "-s", more)
    assert code == 0
    assert out == [f"saved {tmp_path}/out/properties/networks.csv"]
    with open(tmp_path / "out" / "properties" / "networks.csv", encoding="utf-8", newline="") as stream:
        assert len(list(csv.reader(stream))) == 1 + 2 * 10
    message = failed(run("bench", "networks", config, "--out", tmp_path / "out"))
    assert "expected a task of the kind properties, got long_range" in message
