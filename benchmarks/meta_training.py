"""Runs of ``ghn-pyg train`` by several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from ghn_pyg.training.config import TrainConfig
from ghn_pyg.training.logs import read_log


def trained(
    config: TrainConfig, folder: Path, processes: int, device: str = "cpu", *, steps: int | None = None,
    workers: int = 0,
) -> list[dict[str, float]]:  # fmt: skip
    """Trains in ``folder / "run"`` and returns the rows of the log.

    Args:
        config: The run.
        folder: A folder for it alone.
        processes: How many train, each with one thread.
        device: Where.
        steps: The run ends after so many.
        workers: Processes that make architectures for each of them, and as many that read images.

    Raises:
        RuntimeError: If training fails.
    """
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               "-m", "ghn_pyg.cli", "train", str(recipe), "--out", str(folder / "run"), "--device", device,
               "--workers", str(workers)]  # fmt: skip
    command += [] if steps is None else ["--steps", str(steps)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"training ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return read_log(folder / "run" / "log.csv")
