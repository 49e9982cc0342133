"""Runs a benchmark: every encoder with every seed on every task."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from .config import BenchConfig
from .results import Result, add_config, load_result, save_result

FAILURES: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""Errors that faults of an encoder raise. Others, such as those of a full disk or a missing package, stop the run."""


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
                    save_result(result, path)
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
