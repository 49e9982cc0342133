"""Results of a benchmark in its folder, which a later run resumes and adds to."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from ..utils.atomic_files import replacing
from ..version import __version__
from .base_task import Task
from .config import BenchConfig
from .tasks import make_task

CONFIG_FILE: Final = "bench.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Values (``figures``) of one encoder with one seed on one task, by the name of the metric, or its error."""

    task: str
    encoder: str
    seed: int
    figures: dict[str, float]
    seconds: float
    error: str = ""


def save_result(result: Result, path: Path) -> None:
    """Writes a result."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n", encoding="utf-8")


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
    with FileLock(folder / ".lock"), replacing(folder / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(_merged(config, folder), indent=2) + "\n", encoding="utf-8")


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
