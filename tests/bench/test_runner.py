import dataclasses
import json

import pytest

from ghn_pyg.bench.regression import LongRangeTask
from ghn_pyg.bench.runner import run_bench
from tests.bench.tiny import LONG_RANGE, bench


@pytest.fixture
def fake(monkeypatch):
    """A task whose figure is the seed; the calls are noted."""
    calls = []

    def run(self, ghn, seed, folder):
        calls.append((ghn.encoder, seed))
        return {"figure": float(seed)}

    monkeypatch.setattr(LongRangeTask, "run", run)
    return calls


def test_every_encoder_with_every_seed(fake, tmp_path):
    heard = []
    results = run_bench(bench(seeds=[3, 5]), tmp_path, heard.append)
    assert fake == [("mlp", 3), ("mlp", 5), ("gcn", 3), ("gcn", 5)]
    assert heard == results
    assert [(one.task, one.encoder, one.seed, one.figures) for one in results] == [
        ("long_range", encoder, seed, {"figure": seed}) for encoder in ("mlp", "gcn") for seed in (3, 5)
    ]
    kept = json.loads((tmp_path / "results" / "long_range" / "gcn" / "5.json").read_text())
    assert kept == dataclasses.asdict(results[3])


def test_a_stopped_benchmark_goes_on(fake, tmp_path):
    first = run_bench(bench(encoders=["mlp"]), tmp_path)
    fake.clear()
    results = run_bench(bench(seeds=[0, 1]), tmp_path)  # more encoders, and more seeds
    assert fake == [("mlp", 1), ("gcn", 0), ("gcn", 1)]
    assert results[0] == first[0]


def test_a_failure_keeps_what_was_there(fake, tmp_path, monkeypatch):
    run_bench(bench(encoders=["mlp"]), tmp_path)

    def fail(self, ghn, seed, folder):
        raise OSError("disk is full")

    monkeypatch.setattr(LongRangeTask, "run", fail)
    with pytest.raises(OSError, match="disk is full"):
        run_bench(bench(), tmp_path)
    assert [path.parent.name for path in (tmp_path / "results").rglob("*.json")] == ["mlp"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_channels": 12}, "holds another benchmark, which differs in hidden_channels; take another folder"),
        ({"tasks": {"long_range": {**LONG_RANGE, "epochs": 2}}}, "which differs in tasks.long_range; take another"),
    ],
)
def test_another_benchmark_in_the_folder(fake, tmp_path, changes, message):
    run_bench(bench(), tmp_path)
    with pytest.raises(ValueError, match=message):
        run_bench(bench(**changes), tmp_path)


def test_another_task_may_join(fake, tmp_path):
    run_bench(bench(encoders=["mlp"]), tmp_path)
    both = {"long_range": LONG_RANGE, "more": {"kind": "long_range", "epochs": 2}}
    assert [one.task for one in run_bench(bench(both, encoders=["mlp"]), tmp_path)] == ["long_range", "more"]


def test_tasks_are_remembered(fake, tmp_path):
    run_bench(bench(encoders=["mlp"]), tmp_path)
    run_bench(bench({"more": {"kind": "long_range"}}, encoders=["mlp"]), tmp_path)
    with pytest.raises(ValueError, match=r"differs in tasks.long_range; take another"):
        run_bench(bench({"long_range": {**LONG_RANGE, "epochs": 99}}, encoders=["mlp"]), tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"task": 3}'])
@pytest.mark.parametrize("name", ["results/long_range/mlp/0.json"])
def test_files_that_are_torn(fake, tmp_path, text, name):
    run_bench(bench(), tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"0\.json.*remove it to measure again"):
        run_bench(bench(), tmp_path)
