"""Runs a benchmark, every encoder with every seed on every task, and keeps the results in its folder."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from ..utils.atomic_files import write_text
from ..version import __version__
from .base_task import Task
from .config import BenchConfig, make_task

CONFIG_FILE: Final = "bench.json"
FAILURES: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""Errors that faults of an encoder raise. Others, such as those of a full disk or a missing package, stop the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Values (``figures``) of one encoder with one seed on one task, by the name of the metric, or its error."""

    task: str
    encoder: str
    seed: int
    figures: dict[str, float]
    seconds: float
    error: str = ""


def run_bench(
    config: BenchConfig, folder: str | os.PathLike[str], progress: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Runs a benchmark, or resumes it; returns its results, ordered by task, encoder and seed.

    An encoder that fails does not stop the others; a later run tries it again. Several processes with the same folder,
    on one or more machines, divide the work; each returns when all results are there.

    Args:
        config: The benchmark.
        folder: Its folder, which benchmarks with other encoders, seeds or further tasks may share.
        progress: Called with each result, also with those of earlier runs.

    Raises:
        ValueError: If the folder has results of other tasks with the same names, or of encoders with another width.
    """
    folder = Path(folder)
    add_config(config, folder)
    start = time.time()
    keys = list(itertools.product(config.tasks, config.encoders, config.seeds))
    results: dict[tuple[str, str, int], Result] = {}
    for timeout in (0, -1):  # first what no other process measures, then wait for the others
        for key in keys:
            if key in results:
                continue
            task, encoder, seed = key
            path = folder / "results" / task / encoder / f"{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(Timeout), FileLock(path.with_suffix(".lock"), timeout=timeout):
                # A failure of an earlier run is tried again, one of another process in the meantime is not.
                result = load_result(path) if path.exists() else None
                if result is None or (result.error and path.stat().st_mtime < start):
                    result = _measure(config, task, encoder, seed, folder)
                    write_text(path, json.dumps(dataclasses.asdict(result), indent=1) + "\n")
                progress(result)
                results[key] = result
    return [results[key] for key in keys]


def _measure(config: BenchConfig, task: str, encoder: str, seed: int, folder: Path) -> Result:
    start, figures, error = time.perf_counter(), {}, ""
    try:
        figures = config.tasks[task].run(config.ghn(encoder), seed, folder / task)
    except FAILURES as raised:
        frame = traceback.extract_tb(raised.__traceback__)[-1]
        message = f"{type(raised).__name__}: {raised} ({Path(frame.filename).name}, line {frame.lineno})"
        error = " ".join(message.split())
    seconds = time.perf_counter() - start
    return Result(task=task, encoder=encoder, seed=seed, figures=figures, seconds=seconds, error=error)


def load_result(path: Path) -> Result:
    """Reads a result; raises a ValueError if the file is damaged."""
    try:
        return Result(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to measure again") from error


def load_results(folder: str | os.PathLike[str]) -> tuple[dict[str, Task], list[Result]]:
    """All tasks and results in the folder of a benchmark, ordered by task, encoder and seed."""
    folder = Path(folder)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    tasks = {name: make_task(name, fields) for name, fields in config["tasks"].items()}
    keys = itertools.product(tasks, config["encoders"], config["seeds"])
    paths = (folder / "results" / task / encoder / f"{seed}.json" for task, encoder, seed in keys)
    return tasks, [load_result(path) for path in paths if path.exists()]


def add_config(config: BenchConfig, folder: Path) -> None:
    """Adds tasks, encoders, seeds and the version of this package to ``bench.json``, unless results would differ."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        write_text(folder / CONFIG_FILE, json.dumps(_merged(config, folder), indent=2) + "\n")


def _merged(config: BenchConfig, folder: Path) -> dict[str, Any]:
    new = {**config.to_dict(), "versions": [__version__]}
    if not (folder / CONFIG_FILE).exists():
        return new
    old = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    differences = [name for name in ("hidden_channels", "layers", "heads") if old.get(name) != new[name]]
    differences += [f"tasks.{name}" for name, task in new["tasks"].items() if old["tasks"].get(name, task) != task]
    if differences:
        raise ValueError(
            f"{folder} holds another benchmark, which differs in {', '.join(differences)}; use another folder"
        )
    lists = {name: list(dict.fromkeys(old.get(name, []) + new[name])) for name in ("encoders", "seeds", "versions")}
    return {**new, **lists, "seeds": sorted(lists["seeds"]), "tasks": {**old["tasks"], **new["tasks"]}}
