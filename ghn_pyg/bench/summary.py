"""Results of a benchmark as CSV, as Markdown and as pictures."""

from __future__ import annotations

import csv
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..utils.atomic_files import replacing
from ..utils.optional import require
from .runner import Result
from .tasks import Task


class Cell(NamedTuple):
    """A figure of an encoder over all seeds: its mean and its standard deviation (of the sample; NaN for one)."""

    mean: float
    std: float

    def text(self) -> str:
        """Mean ± deviation, the larger of them in three digits."""
        if not math.isfinite(self.mean):
            return "–"
        size = abs(self.mean) if math.isnan(self.std) else max(abs(self.mean), self.std)
        digits = max(0, 2 - math.floor(math.log10(size))) if size else 0
        spread = "" if math.isnan(self.std) else f" ± {self.std:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


def cells(results: Iterable[Result]) -> dict[str, dict[str, dict[str, Cell]]]:
    """Cells by task, figure and encoder."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for result in results:
        values.setdefault(result.task, {})
        for figure, value in result.figures.items():
            place = values.setdefault(result.task, {}).setdefault(figure, {})
            place.setdefault(result.encoder, []).append(value)
    return {
        task: {figure: {encoder: _cell(found) for encoder, found in row.items()} for figure, row in figures.items()}
        for task, figures in values.items()
    }


def _cell(values: Sequence[float]) -> Cell:
    if not all(math.isfinite(value) for value in values):
        return Cell(math.nan, math.nan)
    return Cell(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)


class Table(NamedTuple):
    """What was measured on a task, as texts.

    Args:
        figures: Their names.
        lines: For each encoder the text of each figure.
        failures: What failed, and why.
    """

    figures: list[str]
    lines: dict[str, list[str]]
    failures: list[str]


def tables(results: Sequence[Result]) -> dict[str, Table]:
    """A table for each task."""
    found = {}
    for task, rows in cells(results).items():
        own = [result for result in results if result.task == task]
        failed = {result.encoder for result in own if result.error}
        lines = {encoder: [
            row[encoder].text() if encoder in row else "failed" if encoder in failed else "–"
            for row in (rows or {"": {}}).values()
        ] for encoder in dict.fromkeys(result.encoder for result in own)}  # fmt: skip
        failures = [f"{one.encoder}, seed {one.seed}: {one.error}" for one in own if one.error]
        found[task] = Table([*rows] or ["figures"], lines, failures)
    return found


def save_summary(tasks: Mapping[str, Task], results: Sequence[Result], folder: str | os.PathLike[str]) -> list[Path]:
    """Writes ``results.csv`` (one row for each figure and seed), ``results.md`` and a picture for each task.

    Args:
        tasks: The tasks by name.
        results: Their results, such as :func:`~ghn_pyg.bench.runner.kept_results` finds them.
        folder: An existing folder.

    Returns:
        The files. Pictures are left out where matplotlib is missing.

    Raises:
        OSError: If they cannot be written.
    """
    folder = Path(folder)
    files = [folder / "results.csv", folder / "results.md"]
    with replacing(files[0]) as unfinished, open(unfinished, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("task", "figure", "encoder", "seed", "value"))
        for result in results:
            writer.writerows((result.task, figure, result.encoder, result.seed, value)
                             for figure, value in result.figures.items())  # fmt: skip
    with replacing(files[1]) as unfinished:
        unfinished.write_text(markdown(tasks, results), encoding="utf-8")
    try:
        figure = require("matplotlib.figure", "plot", "pictures").Figure
    except ImportError:
        return files
    for task, rows in cells(results).items():
        if not rows:
            continue
        files.append(folder / f"{task}.png")
        _plot(figure, rows, files[-1])
    return files


def markdown(tasks: Mapping[str, Task], results: Sequence[Result]) -> str:
    """Tables of means ± standard deviations over seeds, the best of each figure in bold; and what failed."""
    sections, found = [], cells(results)
    for task, table in tables(results).items():
        best = [_best(row, tasks[task].sign) for row in found[task].values()] or [set()]
        lines = [["encoder", *table.figures], ["---", *["---:"] * len(table.figures)]]
        for encoder, texts in table.lines.items():
            marked = [f"**{text}**" if encoder in those else text for text, those in zip(texts, best, strict=True)]
            lines.append([encoder, *marked])
        seeds = len({result.seed for result in results if result.task == task})
        sections.append(f"## {task}, {seeds} seed{'s' * (seeds > 1)}\n\n" + "\n".join(
            "| " + " | ".join(line) + " |" for line in lines))  # fmt: skip
        if table.failures:
            sections.append("\n".join(f"- failed: {failure}" for failure in table.failures))
    return "\n\n".join(sections) + "\n"


def _best(row: Mapping[str, Cell], sign: int) -> set[str]:
    """The encoders of the best mean: none where all are alike."""
    known = {encoder: sign * cell.mean for encoder, cell in row.items() if math.isfinite(cell.mean)}
    found = {encoder for encoder, mean in known.items() if mean == max(known.values())}
    return found if len(found) < len(row) or len(row) == 1 else set()


def _plot(figure_kind: Any, rows: dict[str, dict[str, Cell]], path: Path) -> None:
    figure = figure_kind(figsize=(3.4 * len(rows), 3.6), layout="constrained")
    panels = figure.subplots(1, len(rows), squeeze=False)[0]
    for panel, (name, row) in zip(panels, rows.items(), strict=True):
        spread = [0.0 if math.isnan(cell.std) else cell.std for cell in row.values()]
        means = [cell.mean if math.isfinite(cell.mean) else 0.0 for cell in row.values()]
        panel.barh([*row], means, xerr=spread, color="#9ec5e8", height=0.7)
        panel.set_title(name, fontsize=10)
        panel.invert_yaxis()
        panel.spines[["top", "right"]].set_visible(False)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120)
