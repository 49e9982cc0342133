import csv
import math

import pytest

from ghn_pyg.bench import Result
from ghn_pyg.bench.summary import Cell, markdown, save_summary
from tests.bench.tiny import LONG_RANGE, bench

TASKS = bench({"long_range": LONG_RANGE, "cost": {}}).tasks
FAILED = Result(task="cost", encoder="mine", seed=0, figures={}, seconds=1.0, error="TypeError: no width")


def result(task, encoder, seed, **figures):
    return Result(task=task, encoder=encoder, seed=seed, figures=figures, seconds=1.0)


RESULTS = [
    result("long_range", "mlp", 0, accuracy=0.25),
    result("long_range", "mlp", 1, accuracy=0.35),
    result("long_range", "gcn", 0, accuracy=0.5),
    result("long_range", "gcn", 1, accuracy=0.5),
    result("cost", "mlp", 0, ms=2.0, MB=3.0),
    result("cost", "gcn", 0, ms=7.0),
]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(0.30001, 0.0707), "0.300 ± 0.071"),
        (Cell(0.0, 0.4714), "0.000 ± 0.471"),
        (Cell(1234.5, 20.4), "1234 ± 20"),
        (Cell(7.0, math.nan), "7.00"),
        (Cell(0.0, 0.0), "0 ± 0"),
        (Cell(math.nan, math.nan), "–"),
        (Cell(-0.2, 0.01), "-0.200 ± 0.010"),
    ],
)
def test_three_digits(cell, text):
    assert str(cell) == text


def test_markdown():
    """More accuracy is better, and less time."""
    assert (
        markdown(TASKS, RESULTS)
        == """## long_range, 2 seeds

| encoder | accuracy |
| --- | ---: |
| mlp | 0.300 ± 0.071 |
| gcn | **0.500 ± 0.000** |

## cost, 1 seed

| encoder | ms | MB |
| --- | ---: | ---: |
| mlp | **2.00** | **3.00** |
| gcn | 7.00 | – |
"""
    )


def test_equal_results_are_all_best_unless_there_are_no_others():
    results = [
        result("long_range", name, 0, accuracy=value) for name, value in zip("abc", (0.5, 0.5, 0.25), strict=True)
    ]
    assert "| a | **0.500** |\n| b | **0.500** |\n| c | 0.250 |" in markdown(TASKS, results)
    assert "**" not in markdown(TASKS, results[:2])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite(tmp_path, bad):
    results = [*RESULTS, result("long_range", "mlp", 2, accuracy=bad)]
    assert "| mlp | – |\n| gcn | **0.500 ± 0.000** |" in markdown(TASKS, results)
    save_summary(TASKS, results, tmp_path)
    assert "**" not in markdown(TASKS, [result("long_range", "mlp", 0, accuracy=bad)])


def test_failures(tmp_path):
    text = markdown(TASKS, [*RESULTS, FAILED])
    assert "| mine | failed | failed |\n\n- failed: mine, seed 0: TypeError: no width\n" in text
    assert "| mine |" not in text.partition("## cost")[0]
    assert "| encoder | figures |\n| --- | ---: |\n| mine | failed |\n" in markdown(TASKS, [FAILED])
    assert [path.name for path in save_summary(TASKS, [FAILED], tmp_path)] == ["results.csv", "results.md"]


def test_files(tmp_path):
    files = save_summary(TASKS, RESULTS, tmp_path)
    assert [path.name for path in files] == ["results.csv", "results.md", "long_range.png", "cost.png"]
    with open(files[0], encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[:2] == [["task", "figure", "encoder", "seed", "value"], ["long_range", "accuracy", "mlp", "0", "0.25"]]
    assert len(rows) == 1 + 7
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files[2:])
