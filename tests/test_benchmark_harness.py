"""What all benchmarks share."""

import itertools
import json

import pytest
import torch

from benchmarks import deepnets, harness


class TestMeasure:
    @pytest.fixture
    def clock(self, monkeypatch):
        """Calls take as long as the list says."""

        def set_clock(durations):
            ends = list(itertools.accumulate(durations))
            ticks = iter([tick for start, end in itertools.pairwise([0, *ends]) for tick in (start, end)])
            monkeypatch.setattr(harness.time, "perf_counter", lambda: next(ticks))

        return set_clock

    def test_first_call_warms_up(self, clock):
        clock([5, 1, 3, 2])
        calls = iter("abcd")
        timing = harness.measure(lambda: next(calls), repeats=3)
        assert timing.seconds == [1, 3, 2]
        assert timing.median == 2
        assert timing.result == "d"

    def test_stops_after_three_when_the_budget_is_spent(self, clock):
        clock([5] * 4)
        assert harness.measure(int, repeats=7, budget=8).seconds == [5, 5, 5]

    def test_a_slow_first_call_counts_and_is_the_only_one(self, clock):
        clock([11])
        assert harness.measure(int, repeats=7, budget=8).seconds == [11]

    def test_in_turns(self, clock):
        """Of two functions, each first call warms up, and rounds end when the budget is spent."""
        clock([9, 9, 1, 2, 3, 5, 4, 7, 1, 1])
        called = []
        functions = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
        assert harness.measure_in_turns(functions, repeats=5, budget=10) == {"a": [1, 3, 4], "b": [2, 5, 7]}
        assert called == ["a", "b"] * 4

    def test_rounds_end(self, clock):
        clock([9, 1, 2])
        assert harness.measure_in_turns({"a": int}, repeats=2, budget=1) == {"a": [1, 2]}

    def test_arguments_are_made_anew_for_each_call(self):
        made = itertools.count()
        assert harness.measure(lambda value: value, repeats=2, setup=lambda: (next(made),)).result == 2


class TestHarness:
    def test_slope_is_the_exponent(self):
        assert harness.slope([2, 3, 7], [5 * 2**1.5, 5 * 3**1.5, 5 * 7**1.5]) == pytest.approx(1.5)
        assert harness.slope([2, 3], [0, 1]) is None

    def test_geometric_mean_needs_every_row(self):
        assert harness.geometric_mean([{"s": 2.0}, {"s": 8.0}], "s") == pytest.approx(4)
        assert harness.geometric_mean([{"s": 2.0}, {}], "s") is None

    @pytest.mark.parametrize(
        ("value", "text"),
        [(None, "–"), (0, "0"), (0.012345, "0.0123"), (1.2345, "1.23"), (12.345, "12.3"), (1234.5, "1234")],
    )
    def test_numbers_have_three_digits(self, value, text):
        assert harness.number(value) == text

    def test_peak_memory_sees_what_is_freed_again(self):
        found = harness.peak_memory(lambda: torch.ones(40_000_000).sum())
        assert 150e6 < found["over_baseline"] < 250e6
        assert found["peak"] >= found["baseline"] + 150e6

    def test_fresh_calls_in_a_new_process(self):
        assert harness.fresh("harness:number", value=3.14159) == "3.14"

    def test_fresh_reports_failures(self):
        with pytest.raises(RuntimeError, match=r"(?s)harness:number.*three.*TypeError"):
            harness.fresh("harness:number", value="three")

    def test_results_hold_hardware_versions_and_date(self, tmp_path, capsys):
        options = harness.arguments(None, "nothing").parse_args(["--out", str(tmp_path / "new")])
        run = harness.Run("nothing", options)
        run.finish({"rows": [2, 3]}, "## A section")
        json_file, report = sorted((tmp_path / "new").iterdir())
        assert json_file.name == f"nothing-{run.environment['date'][:10]}.json"
        found = json.loads(json_file.read_text())
        assert found["rows"] == [2, 3]
        assert {"processor", "cores", "threads", "memory_gb", "versions", "date", "load"} <= set(found["environment"])
        assert found["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert found["matrix_product_s"]["median"] > 0
        assert "## A section" in report.read_text()
        assert report.read_text() in capsys.readouterr().out

    def test_failed_writes_leave_older_results(self, tmp_path, monkeypatch):
        run = harness.Run("nothing", harness.arguments(None, "nothing").parse_args(["--out", str(tmp_path)]))
        run.finish({"rows": [2]})
        before = {path.name: path.read_text() for path in tmp_path.iterdir()}
        monkeypatch.setattr(harness.Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            run.finish({"rows": [3]})
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


class TestDropping:
    def test_batches_over_the_budget_go(self):
        """The last one fills no batch."""
        bias = deepnets.dropping([1, 2, 30, 4, 5, 6, 7], size=2, budget=20)
        assert bias["dropped"] == pytest.approx(1 / 3)
        assert bias["mean_drawn"] == pytest.approx(48 / 6)
        assert (bias["mean_kept"], bias["largest_drawn"], bias["largest_kept"]) == (3.5, 30, 6)
        assert bias["large_kept"] == 0

    def test_nothing_goes_within_the_budget(self):
        bias = deepnets.dropping([1, 2, 3, 4], size=2, budget=20)
        assert (bias["dropped"], bias["mean_kept"], bias["mean_drawn"]) == (0, 2.5, 2.5)
