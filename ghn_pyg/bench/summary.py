"""Tables and bar charts of the results of a benchmark, as CSV, Markdown and PNG."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..utils.atomic_files import replacing, write_csv, write_text
from ..utils.optional import require
from .base_task import Task
from .runner import Result


class Cell(NamedTuple):
    """Mean and sample standard deviation of a metric of an encoder over seeds; NaN where they are undefined."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Cell:
        """The cell of values of several seeds."""
        if not all(map(math.isfinite, values)):
            return cls(math.nan, math.nan)
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)

    def __str__(self) -> str:
        """Mean ± deviation, the larger one with three digits."""
        if not math.isfinite(self.mean):
            return "–"
        largest = abs(self.mean) if math.isnan(self.std) else max(abs(self.mean), self.std)
        digits = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
        deviation = "" if math.isnan(self.std) else f" ± {self.std:.{digits}f}"
        return f"{self.mean:.{digits}f}{deviation}"


class Table(NamedTuple):
    """The results on a task as texts: names of metrics, their values by encoder, and messages of failed runs."""

    figures: list[str]
    lines: dict[str, list[str]]
    failures: list[str]


def cells(results: Iterable[Result]) -> dict[str, dict[str, dict[str, Cell]]]:
    """Cells by task, metric and encoder."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for result in results:
        metrics = values.setdefault(result.task, defaultdict(lambda: defaultdict(list)))
        for metric, value in result.figures.items():
            metrics[metric][result.encoder].append(value)
    return {
        task: {metric: {name: Cell.of(numbers) for name, numbers in row.items()} for metric, row in metrics.items()}
        for task, metrics in values.items()
    }


def tables(results: Sequence[Result], signs: Mapping[str, int] | None = None) -> dict[str, Table]:
    """A table for each task; with the sign of each task, the best values are in bold as in Markdown."""
    made = {}
    for task, rows in cells(results).items():
        own = [result for result in results if result.task == task]
        lines: dict[str, list[str]] = {result.encoder: [] for result in own}
        failed = {result.encoder for result in own if result.error}
        for row in rows.values() or [{}]:
            best = _best(row, signs[task]) if signs else set()
            for encoder, line in lines.items():
                text = str(row.get(encoder, "failed" if encoder in failed else "–"))
                line.append(f"**{text}**" if encoder in best else text)
        failures = [f"{result.encoder}, seed {result.seed}: {result.error}" for result in own if result.error]
        made[task] = Table([*rows] or ["figures"], lines, failures)
    return made


def _best(row: Mapping[str, Cell], sign: int) -> set[str]:
    """The encoders with the best mean; none if several encoders all have it."""
    means = {encoder: sign * cell.mean for encoder, cell in row.items() if math.isfinite(cell.mean)}
    best = {encoder for encoder, mean in means.items() if mean == max(means.values())}
    return best if len(best) < len(row) or len(row) == 1 else set()


def save_summary(tasks: Mapping[str, Task], results: Sequence[Result], folder: str | os.PathLike[str]) -> list[Path]:
    """Writes ``results.csv``, ``results.md`` and, if matplotlib is installed, a bar chart for each task."""
    folder = Path(folder)
    files = [folder / "results.csv", folder / "results.md"]
    rows = [
        (result.task, metric, result.encoder, result.seed, value)
        for result in results
        for metric, value in result.figures.items()
    ]
    write_csv(files[0], [("task", "figure", "encoder", "seed", "value"), *rows])
    write_text(files[1], markdown(tasks, results))
    with contextlib.suppress(ImportError):
        for task, metrics in cells(results).items():
            if metrics:
                _save_chart(metrics, folder / f"{task}.png")
                files.append(folder / f"{task}.png")
    return files


def markdown(tasks: Mapping[str, Task], results: Sequence[Result]) -> str:
    """A table of means ± standard deviations for each task, the best values in bold, and the failures."""
    sections = []
    for task, table in tables(results, {name: task.sign for name, task in tasks.items()}).items():
        rows = [["encoder", *table.figures], ["---", *["---:"] * len(table.figures)]]
        rows += [[encoder, *texts] for encoder, texts in table.lines.items()]
        seeds = len({result.seed for result in results if result.task == task})
        lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        sections.append(f"## {task}, {seeds} seed{'s' * (seeds > 1)}\n\n{lines}")
        if table.failures:
            sections.append("\n".join(f"- failed: {failure}" for failure in table.failures))
    return "\n\n".join(sections) + "\n"


def _save_chart(rows: dict[str, dict[str, Cell]], path: Path) -> None:
    figure = require("matplotlib.figure", "plot", "charts").Figure((3.4 * len(rows), 3.6), layout="constrained")
    for axes, (metric, row) in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True):
        means, stds = np.nan_to_num([*row.values()]).T
        axes.barh([*row], means, xerr=stds, color="#9ec5e8", height=0.7)
        axes.set_title(metric, fontsize=10)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
