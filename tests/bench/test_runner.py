import dataclasses
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock

from ghn_pyg.bench.graph_regression import LongRangeTask
from ghn_pyg.bench.runner import kept_results, run_bench
from ghn_pyg.version import __version__
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


def test_processes_divide_the_work(fake, tmp_path):
    path = tmp_path / "results" / "long_range" / "mlp"
    path.mkdir(parents=True)
    other = FileLock(path / "5.lock")
    other.acquire()
    heard = []

    def note(result):
        heard.append((result.encoder, result.seed))
        if len(heard) == 3:  # nothing else is left: the other process is done
            theirs = dataclasses.replace(result, encoder="mlp", seed=5, figures={"figure": 7.0})
            (path / "5.json").write_text(json.dumps(dataclasses.asdict(theirs)))
            other.release()

    results = run_bench(bench(seeds=[3, 5]), tmp_path, note)
    assert fake == [("mlp", 3), ("gcn", 3), ("gcn", 5)]
    assert heard == [*fake, ("mlp", 5)]
    assert [(one.encoder, one.seed, one.figures["figure"]) for one in results] == [
        ("mlp", 3, 3.0), ("mlp", 5, 7.0), ("gcn", 3, 3.0), ("gcn", 5, 5.0)
    ]  # fmt: skip


def test_what_another_process_left_undone(fake, tmp_path):
    path = tmp_path / "results" / "long_range" / "mlp"
    path.mkdir(parents=True)
    other = FileLock(path / "0.lock")
    other.acquire()
    results = run_bench(bench(), tmp_path, lambda result: other.release())
    assert fake == [("gcn", 0), ("mlp", 0)]
    assert [one.encoder for one in results] == ["mlp", "gcn"]


def test_processes_that_start_together_with_other_seeds(fake, tmp_path):
    lock = FileLock(tmp_path / ".lock")
    with ThreadPoolExecutor(1) as pool:
        with lock:
            started = pool.submit(run_bench, bench(seeds=[5]), tmp_path)
            run_bench(bench(seeds=[3]), tmp_path / "theirs")
            shutil.copy(tmp_path / "theirs" / "bench.json", tmp_path)
        started.result()
    assert json.loads((tmp_path / "bench.json").read_text())["seeds"] == [3, 5]


def test_what_failed_in_another_process_meanwhile_is_not_tried_again(fake, tmp_path, monkeypatch):
    def fail(self, ghn, seed, folder):
        fake.append((ghn.encoder, seed))
        raise ValueError("no")

    monkeypatch.setattr(LongRangeTask, "run", fail)
    run_bench(bench(encoders=["mlp"]), tmp_path)
    path = tmp_path / "results" / "long_range" / "mlp" / "0.json"
    os.utime(path, (time.time() - 60,) * 2)
    run_bench(bench(encoders=["mlp"]), tmp_path)
    assert fake == [("mlp", 0)] * 2  # one that had failed before is
    os.utime(path, (time.time() + 60,) * 2)
    assert run_bench(bench(encoders=["mlp"]), tmp_path)[0].error.startswith("ValueError: no")
    assert fake == [("mlp", 0)] * 2


def test_a_failure_keeps_what_was_there(fake, tmp_path, monkeypatch):
    run_bench(bench(encoders=["mlp"]), tmp_path)

    def fail(self, ghn, seed, folder):
        raise OSError("disk is full")

    monkeypatch.setattr(LongRangeTask, "run", fail)
    with pytest.raises(OSError, match="disk is full"):
        run_bench(bench(), tmp_path)
    assert [path.parent.name for path in (tmp_path / "results").rglob("*.json")] == ["mlp"]


def test_an_encoder_that_fails_does_not_stop_the_others(fake, tmp_path, monkeypatch):
    measure = LongRangeTask.run

    def fail(self, ghn, seed, folder):
        if ghn.encoder == "mlp":
            raise TypeError("the encoder\ngives two")
        return measure(self, ghn, seed, folder)

    with monkeypatch.context() as patch:
        patch.setattr(LongRangeTask, "run", fail)
        failed, fine = run_bench(bench(), tmp_path)
    assert failed.error.startswith("TypeError: the encoder gives two (test_runner.py, line ")
    assert (failed.figures, fine.error, fine.figures) == ({}, "", {"figure": 0.0})
    assert kept_results(tmp_path)[1] == [failed, fine]
    # It is tried again.
    assert run_bench(bench(), tmp_path)[0].figures == {"figure": 0.0}
    assert fake == [("gcn", 0), ("mlp", 0)]


def test_a_folder_keeps_all_results(fake, tmp_path):
    run_bench(bench(seeds=[5]), tmp_path)
    run_bench(bench({"more": {"kind": "long_range", "epochs": 2}}, encoders=["gin"], seeds=[3]), tmp_path)
    tasks, results = kept_results(tmp_path)
    assert [(one.task, one.encoder, one.seed) for one in results] == [
        ("long_range", "mlp", 5), ("long_range", "gcn", 5), ("more", "gin", 3)
    ]  # fmt: skip
    assert tasks["more"] == LongRangeTask(epochs=2)
    known = json.loads((tmp_path / "bench.json").read_text())
    assert (known["encoders"], known["seeds"], known["versions"]) == (["mlp", "gcn", "gin"], [3, 5], [__version__])


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


def test_a_benchmark_that_says_nothing(tmp_path):
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bench\.json has no tasks, encoders, seeds; remove it"):
        kept_results(tmp_path)
