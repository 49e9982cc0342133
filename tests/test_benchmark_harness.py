"""The harness that all benchmarks share."""

import itertools
import json

import pytest
import torch

from benchmarks import deepnets, harness


@pytest.fixture
def clock(monkeypatch):
    """Calls take as long as a list says."""

    def set_clock(durations):
        ends = list(itertools.accumulate(durations))
        ticks = iter([tick for start, end in itertools.pairwise([0, *ends]) for tick in (start, end)])
        monkeypatch.setattr(harness.time, "perf_counter", lambda: next(ticks))

    return set_clock


@pytest.mark.parametrize(
    ("durations", "repeats", "seconds"),
    [
        ([5, 1, 3, 2], 3, [1, 3, 2]),  # after a warm-up
        ([5, 5, 5, 5], 7, [5, 5, 5]),  # three at least, then the budget is spent
        ([11], 7, [11]),  # a first call that spends the budget is the only one
    ],
)
def test_timing(clock, durations, repeats, seconds):
    clock(durations)
    calls = itertools.count(1)
    timing = harness.measure(lambda: next(calls), repeats, budget=8)
    assert timing.seconds == seconds
    assert timing.result == len(durations)


@pytest.mark.parametrize(
    ("durations", "repeats", "budget", "seconds"),
    [
        ([9, 9, 1, 2, 3, 5, 4, 7, 1, 1], 5, 10, {"a": [1, 3, 4], "b": [2, 5, 7]}),
        ([9, 9, 1, 2, 2, 1], 2, 1, {"a": [1, 2], "b": [2, 1]}),
    ],
)
def test_timing_in_turns(clock, durations, repeats, budget, seconds):
    clock(durations)
    called = []
    functions = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    assert harness.measure_in_turns(functions, repeats, budget) == seconds
    assert called == ["a", "b"] * (1 + len(seconds["a"]))


def test_statistics():
    assert harness.slope([2, 3, 7], [5 * 2**1.5, 5 * 3**1.5, 5 * 7**1.5]) == pytest.approx(1.5)
    assert harness.slope([2, 3], [0, 1]) is None
    assert harness.geometric_mean([{"s": 2.0}, {"s": 8.0}], "s") == pytest.approx(4)
    assert harness.geometric_mean([{"s": 2.0}, {}], "s") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (0.012345, "0.0123"), (1.2345, "1.23"), (12.345, "12.3"), (1234.5, "1234")],
)
def test_numbers_have_three_digits(value, text):
    assert harness.number(value) == text


def test_calls_in_a_new_process():
    assert harness.in_new_process("paths:large", nodes=11, name="AddShortestPathDistance")["seconds"] > 0
    with pytest.raises(RuntimeError, match=r"(?s)harness:number.*three.*TypeError"):
        harness.in_new_process("harness:number", value="three")


def test_results_have_hardware_versions_and_date(tmp_path, capsys):
    options = harness.arguments(None, "nothing").parse_args(["--out", str(tmp_path / "new")])
    run = harness.Run("nothing", options)
    run.finish({"rows": [2, 3]}, "## A section")
    json_file, report = sorted((tmp_path / "new").iterdir())
    assert json_file.name == f"nothing-{run.environment['date'][:10]}.json"
    results = json.loads(json_file.read_text())
    assert results["rows"] == [2, 3]
    assert {"processor", "cores", "threads", "memory_gb", "versions", "date", "load"} <= set(results["environment"])
    assert results["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert results["matrix_product_s"]["median"] > 0
    assert "## A section" in report.read_text()
    assert report.read_text() in capsys.readouterr().out


def test_dropping_of_large_meta_batches():
    bias = deepnets.dropping([1, 2, 30, 4, 5, 6, 7], size=2, budget=20)  # the last one fills no batch
    assert bias["dropped"] == pytest.approx(1 / 3)
    assert bias["mean_drawn"] == pytest.approx(48 / 6)
    assert (bias["mean_kept"], bias["largest_drawn"], bias["largest_kept"]) == (3.5, 30, 6)
    assert bias["large_kept"] == 0
    assert deepnets.dropping([1, 2, 3, 4], size=2, budget=20)["dropped"] == 0
