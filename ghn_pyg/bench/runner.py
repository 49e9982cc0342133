"""Runs a benchmark: every encoder with every seed on every task, each result kept as soon as it is there."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from ..utils.atomic_files import replacing
from ..version import __version__
from .config import BenchConfig, make_task
from .sharing import divide
from .tasks import Task

CONFIG_FILE: Final = "bench.json"
LOCK_FILE: Final = ".lock"
FAILURES: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What an encoder's own mistakes raise. Others, such as a full disk or a missing package, concern all encoders."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Figures of one encoder with one seed on one task.

    Args:
        task: Name of the task.
        encoder: Name of the encoder.
        seed: The seed.
        figures: Figures by name.
        seconds: How long it took.
        error: Why there are no figures, if it failed.
    """

    task: str
    encoder: str
    seed: int
    figures: dict[str, float]
    seconds: float
    error: str = ""


def run_bench(
    config: BenchConfig, folder: str | os.PathLike[str], progress: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Runs a benchmark, or goes on with one that was stopped.

    An encoder that fails does not stop the others; it is tried again when the benchmark goes on. Several processes,
    on machines that share the folder, divide the work among them; each returns when all of it is done.

    Args:
        config: The benchmark.
        folder: Where results lie, one file for each (``results/TASK/ENCODER/SEED.json``), and what tasks keep. A
            benchmark with other encoders or seeds may go on in the same folder; tasks must be the same.
        progress: Called with each result, those that were there before first.

    Returns:
        Its results, ordered by task, encoder and seed; :func:`kept_results` gives all of the folder.

    Raises:
        ValueError: If the folder holds results of other tasks, or of encoders of another size.

    Example:
        >>> from ghn_pyg.bench.config import load_bench
        >>> run_bench(load_bench("encoders"), "runs/encoders")  # doctest: +SKIP
    """
    folder = Path(folder)
    _joined(config, folder / CONFIG_FILE)  # what does not fit is found before anything is made
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK_FILE), replacing(folder / CONFIG_FILE) as unfinished:
        kept = _joined(config, folder / CONFIG_FILE)
        unfinished.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

    began = time.time()

    def work(place: tuple[str, str, int], patience: float) -> Result:
        path = folder.joinpath("results", *map(str, place)).with_suffix(".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=patience):
            result = _done(path, began) or _measured(config, *place, folder, path)
        progress(result)
        return result

    return divide(list(itertools.product(config.tasks, config.encoders, config.seeds)), work)


def _done(path: Path, began: float) -> Result | None:
    """The result of a file; not that of a failure before this run, which is tried again."""
    if not path.exists():
        return None
    result = _kept(path)
    return None if result.error and path.stat().st_mtime < began else result


def _measured(config: BenchConfig, name: str, encoder: str, seed: int, folder: Path, path: Path) -> Result:
    start, figures, reason = time.perf_counter(), {}, ""
    try:
        figures = config.tasks[name].run(config.ghn(encoder), seed, folder / name)
    except FAILURES as error:
        reason = _reason(error)
    seconds = time.perf_counter() - start
    result = Result(task=name, encoder=encoder, seed=seed, figures=figures, seconds=seconds, error=reason)
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n", encoding="utf-8")
    return result


def kept_results(folder: str | os.PathLike[str]) -> tuple[dict[str, Task], list[Result]]:
    """The tasks that a folder knows, and all results that it holds, ordered by task, encoder and seed.

    Raises:
        ValueError: If a file is damaged.
    """
    folder = Path(folder)
    known = _read(folder / CONFIG_FILE)
    if missing := [field for field in ("tasks", "encoders", "seeds") if field not in known]:
        raise ValueError(f"{folder / CONFIG_FILE} has no {', '.join(missing)}; remove it and start the benchmark again")
    tasks = {name: make_task(name, task) for name, task in known["tasks"].items()}
    found = [
        _kept(path)
        for name in tasks
        for encoder in known["encoders"]
        for seed in known["seeds"]
        if (path := folder / "results" / name / encoder / f"{seed}.json").exists()
    ]
    return tasks, found


def _kept(path: Path) -> Result:
    try:
        return Result(**_read(path))
    except TypeError as error:
        raise ValueError(f"{path} is no result of a benchmark ({error}); remove it to measure again") from error


def _reason(error: BaseException) -> str:
    """An error in one line, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return " ".join(f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})".split())


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}; remove it to measure again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no fields; remove it to measure again")
    return found


def _joined(config: BenchConfig, path: Path) -> dict[str, Any]:
    """The benchmark together with what the folder knows: tasks, encoders, seeds, and versions that measured.

    Raises:
        ValueError: If results in the folder would not be comparable.
    """
    now = {**config.to_dict(), "versions": [__version__]}
    if not path.exists():
        return now
    before = _read(path)
    lists = ("encoders", "seeds", "versions")
    odd = [field for field in now if field not in (*lists, "tasks") and before.get(field) != now[field]]
    tasks: dict[str, Any] = before.get("tasks", {})
    odd += [f"tasks.{name}" for name, task in now["tasks"].items() if name in tasks and tasks[name] != task]
    if odd:
        differs = ", ".join(odd)
        raise ValueError(f"{path.parent} holds another benchmark, which differs in {differs}; take another folder")
    joined = {field: list(dict.fromkeys((*before.get(field, ()), *now[field]))) for field in lists}
    return {**now, **joined, "seeds": sorted(joined["seeds"]), "tasks": {**tasks, **now["tasks"]}}
