import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest
from filelock import FileLock

from ghn_pyg.bench import load_results, run_bench
from ghn_pyg.bench.base_task import Task
from ghn_pyg.bench.config import TASKS
from ghn_pyg.version import __version__
from tests.bench.tiny import bench


class Fake(Task):
    """Its result is the seed; it notes its calls, and fails for encoders in ``errors``."""

    kind: ClassVar[str] = "fake"
    sign: ClassVar[int] = 1
    calls: ClassVar[list] = []
    errors: ClassVar[dict] = {}
    epochs: int = 1

    def run(self, ghn, seed, folder):
        self.calls.append((ghn.encoder, seed))
        if ghn.encoder in self.errors:
            raise self.errors[ghn.encoder]
        return {"figure": float(seed)}


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    monkeypatch.setitem(TASKS, "fake", Fake)
    Fake.calls.clear()
    Fake.errors.clear()


def fake_bench(tasks=None, **changes):
    return bench(tasks or {"fake": {}}, **changes)


def test_every_encoder_is_measured_once_with_every_seed(tmp_path):
    """Also if a run is resumed with more encoders and seeds."""
    run_bench(fake_bench(encoders=["mlp"], seeds=[5]), tmp_path)
    reported = []
    results = run_bench(fake_bench(seeds=[3, 5]), tmp_path, reported.append)
    assert Fake.calls == [("mlp", 5), ("mlp", 3), ("gcn", 3), ("gcn", 5)]
    assert reported == results == load_results(tmp_path)[1]
    assert [(result.task, result.encoder, result.seed, result.figures) for result in results] == [
        ("fake", encoder, seed, {"figure": seed}) for encoder in ("mlp", "gcn") for seed in (3, 5)
    ]


@pytest.mark.parametrize("succeeds", [True, False])
def test_what_another_process_measures_is_left_to_it_unless_it_stops(tmp_path, succeeds):
    path = tmp_path / "results" / "fake" / "mlp" / "5.json"
    path.parent.mkdir(parents=True)
    other = FileLock(path.with_suffix(".lock"))
    other.acquire()

    def progress(result):
        if (result.encoder, result.seed) == ("gcn", 5):  # nothing else is left: now the other process ends
            if succeeds:
                path.write_text(json.dumps({**vars(result), "encoder": "mlp", "figures": {"figure": 7.0}}))
            other.release()

    results = run_bench(fake_bench(seeds=[3, 5]), tmp_path, progress)
    assert Fake.calls == [("mlp", 3), ("gcn", 3), ("gcn", 5), ("mlp", 5)][: 3 if succeeds else 4]
    assert [result.figures["figure"] for result in results] == [3, 7 if succeeds else 5, 3, 5]


def test_runs_that_start_at_the_same_time_measure_once(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run_bench, fake_bench(seeds=[seed, 7, 11]), tmp_path) for seed in (3, 5)]
        results = [run.result() for run in runs]
    assert sorted(Fake.calls) == sorted((encoder, seed) for encoder in ("mlp", "gcn") for seed in (3, 5, 7, 11))
    assert [[result.seed for result in part] for part in results] == [[3, 7, 11] * 2, [5, 7, 11] * 2]
    assert json.loads((tmp_path / "bench.json").read_text())["seeds"] == [3, 5, 7, 11]


def test_a_failed_encoder_does_not_stop_the_others_and_is_tried_again(tmp_path):
    Fake.errors["mlp"] = TypeError("the encoder\ngives two")
    failed, fine = run_bench(fake_bench(), tmp_path)
    assert failed.error.startswith("TypeError: the encoder gives two (test_runner.py, line ")
    assert (failed.figures, fine.error, fine.figures) == ({}, "", {"figure": 0.0})
    assert load_results(tmp_path)[1] == [failed, fine]
    Fake.errors.clear()
    assert run_bench(fake_bench(), tmp_path)[0].figures == {"figure": 0.0}
    assert Fake.calls == [("mlp", 0), ("gcn", 0), ("mlp", 0)]


@pytest.mark.parametrize(("seconds", "calls"), [(-60, 2), (60, 1)])
def test_only_failures_before_this_run_are_tried_again(tmp_path, seconds, calls):
    """Not those of another process in the meantime."""
    Fake.errors["mlp"] = ValueError("no")
    run_bench(fake_bench(encoders=["mlp"]), tmp_path)
    os.utime(tmp_path / "results" / "fake" / "mlp" / "0.json", (time.time() + seconds,) * 2)
    assert run_bench(fake_bench(encoders=["mlp"]), tmp_path)[0].error.startswith("ValueError: no")
    assert len(Fake.calls) == calls


def test_an_error_that_concerns_all_encoders_stops_the_run(tmp_path):
    Fake.errors["gcn"] = OSError("disk is full")
    with pytest.raises(OSError, match="disk is full"):
        run_bench(fake_bench(), tmp_path)
    assert [result.encoder for result in load_results(tmp_path)[1]] == ["mlp"]


def test_a_folder_keeps_the_results_of_all_runs(tmp_path):
    run_bench(fake_bench(seeds=[5]), tmp_path)
    run_bench(fake_bench({"more": {"kind": "fake", "epochs": 2}}, encoders=["gin"], seeds=[3]), tmp_path)
    tasks, results = load_results(tmp_path)
    assert [(result.task, result.encoder, result.seed) for result in results] == [
        ("fake", "mlp", 5), ("fake", "gcn", 5), ("more", "gin", 3)
    ]  # fmt: skip
    assert tasks == {"fake": Fake(), "more": Fake(epochs=2)}
    known = json.loads((tmp_path / "bench.json").read_text())
    assert (known["encoders"], known["seeds"], known["versions"]) == (["mlp", "gcn", "gin"], [3, 5], [__version__])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_channels": 12}, "holds another benchmark, which differs in hidden_channels; use another folder"),
        ({"tasks": {"fake": {"epochs": 2}}}, "which differs in tasks.fake; use another folder"),
    ],
)
def test_another_benchmark_needs_another_folder(tmp_path, changes, message):
    run_bench(fake_bench(encoders=["mlp"]), tmp_path)
    with pytest.raises(ValueError, match=message):
        run_bench(fake_bench(**changes), tmp_path)


OLD = {
    "tasks": {"long_range": {"kind": "long_range", "epochs": 1, "batch_size": 64, "learning_rate": 0.001,
                             "graphs": 24, "shortest": 6, "longest": 9}},
    "encoders": ["mlp", "mine"], "seeds": [0, 1], "hidden_channels": 8, "layers": 1, "heads": 2,
    "versions": ["0.40.0"],
}  # fmt: skip


def test_the_folder_of_an_earlier_version_is_resumed(tmp_path):
    """Also one with an encoder that nobody has registered in this process."""
    (tmp_path / "bench.json").write_text(json.dumps(OLD, indent=2) + "\n")
    path = tmp_path / "results" / "long_range" / "mine" / "1.json"
    path.parent.mkdir(parents=True)
    old = {"task": "long_range", "encoder": "mine", "seed": 1, "figures": {"accuracy": 0.5}, "seconds": 2.0}
    path.write_text(json.dumps({**old, "error": ""}, indent=1) + "\n")
    run_bench(bench(encoders=["gcn"]), tmp_path)
    assert [(result.encoder, result.seed) for result in load_results(tmp_path)[1]] == [("mine", 1), ("gcn", 0)]
    assert json.loads((tmp_path / "bench.json").read_text())["versions"] == ["0.40.0", __version__]


@pytest.mark.parametrize("text", ["", "[]", '{"task": 3}'])
def test_damaged_results(tmp_path, text):
    run_bench(fake_bench(), tmp_path)
    (tmp_path / "results" / "fake" / "mlp" / "0.json").write_text(text)
    with pytest.raises(ValueError, match=r"0\.json is damaged .*; remove it to measure again"):
        run_bench(fake_bench(), tmp_path)
