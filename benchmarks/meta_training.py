"""Trains with several processes, or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from ghn_pyg.training import train as train_ghn
from ghn_pyg.training.config import TrainConfig
from ghn_pyg.training.fabric import make_fabric
from ghn_pyg.training.logs import read_log


def changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    """The configuration with other values in some fields."""
    return TrainConfig.from_dict({**config.to_dict(), **changes})


def train(
    config: TrainConfig, folder: Path, processes: int, device: str = "cpu", *, steps: int | None = None,
    workers: int = 0,
) -> list[dict[str, float]]:  # fmt: skip
    """Trains in ``folder / "run"`` and returns the rows of the log.

    Args:
        config: The run.
        folder: An empty folder.
        processes: Number of processes of ``ghn-pyg train``, each with one thread; 0 trains in this process.
        device: The device.
        steps: Number of steps after which the run ends.
        workers: Worker processes of each process that sample architectures, and as many that read images.

    Raises:
        RuntimeError: If training fails.
    """
    if processes == 0:
        train_ghn(config, folder / "run", steps=steps, workers=workers, fabric=make_fabric(device=device))
        return read_log(folder / "run" / "log.csv")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               "-m", "ghn_pyg.cli", "train", str(recipe), "--out", str(folder / "run"), "--device", device,
               "--workers", str(workers)]  # fmt: skip
    command += [] if steps is None else ["--steps", str(steps)]
    process = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise RuntimeError(f"training ended with {process.returncode}: {process.stderr.strip()[-2000:]}")
    return read_log(folder / "run" / "log.csv")
