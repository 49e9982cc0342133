"""A data set of trained networks: their graphs, as DeepNets-1M draws them, and what became of them."""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..training.config import load_config
from ..training.image_batches import run_images
from ..utils.atomic_files import replacing
from .config import BenchConfig
from .property_prediction import PROPERTIES, PropertyTask

SPLITS: Final = ("val", "test")
"""Networks to learn from, and networks to rank."""


def make_networks(
    config: BenchConfig, folder: str | os.PathLike[str], progress: Callable[[str, int], None] = lambda name, place: None
) -> list[Path]:
    """Trains the networks of all tasks that predict properties, where the benchmark in this folder will find them.

    Args:
        config: The benchmark.
        folder: Its folder; networks that it holds are not trained again.
        progress: Called with split and position after each network.

    Returns:
        For each of those tasks a table of the properties, ``TASK/networks.csv``.

    Raises:
        ValueError: If there is no such task.

    Example:
        >>> from ghn_pyg.bench.config import load_bench
        >>> make_networks(load_bench("encoders"), "runs/encoders")  # doctest: +SKIP
    """
    tasks = {name: task for name, task in config.tasks.items() if isinstance(task, PropertyTask)}
    if not tasks:
        raise ValueError(f"expected a task of the kind {PropertyTask.kind}, got {', '.join(config.tasks)}")
    return [_table(task, Path(folder, name), progress) for name, task in tasks.items()]


def _table(task: PropertyTask, folder: Path, progress: Callable[[str, int], None]) -> Path:
    images = run_images(load_config(task.recipe, task.changes), augment=False)
    rows = []
    for split in SPLITS:
        data = task.data(split, images, folder / "networks", functools.partial(progress, split))
        for place, (_, values) in enumerate(data):
            rows.append((split, place, *(values[name] for name in PROPERTIES)))
    path = folder / "networks.csv"
    with replacing(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("split", "position", *PROPERTIES))
        writer.writerows(rows)
    return path
