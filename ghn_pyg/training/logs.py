"""The log of a run: rows of figures, as a CSV file and for TensorBoard."""

from __future__ import annotations

import csv
import dataclasses
import logging
import math
import os
from pathlib import Path
from typing import Any, Final, Self

from ..utils.atomic_files import write_csv

LOG_FILE: Final = "log.csv"
TENSORBOARD: Final = "tensorboard"

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LogRow:
    """The log of one step.

    Args:
        step: From 0 on.
        epoch: Passes over the training images before the step.
        loss: Mean loss of all networks on all ranks. With balanced gradients a network counts as at most 10.
        top1: Mean accuracy on the training images, from 0 to 1.
        norm: Norm of the gradient before clipping.
        rate: Learning rate.
        scale: Loss scale of half precision, else 1.
        left_out: Networks left out because memory does not suffice or, with balanced gradients, because their gradient
            is not finite.
        skipped: 1 if the step was skipped because its loss or gradient is not finite, else 0.
        seconds: Duration of the step.
        architectures: Architectures in the step, on all ranks.
        val_top1: Mean accuracy of unseen networks on held-out images after the step, from 0 to 1; NaN if it was not
            measured.
    """

    step: int
    epoch: float
    loss: float
    top1: float
    norm: float
    rate: float
    scale: float
    left_out: int
    skipped: int
    seconds: float
    architectures: int
    val_top1: float = math.nan


class RunLog:
    """Writes the log of a run, in a ``with`` statement. Rows survive when the process is killed.

    Fabric's ``CSVLogger`` would keep rows in memory, delete an existing file and sort the columns.
    Rows of ``step`` and later ones, of a run that was killed, are removed.

    Args:
        folder: Folder of the run.
        step: The step of the first row to write.
        kind: The data class of the rows, whose first field is the step.
    """

    def __init__(self, folder: Path, step: int, kind: type[Any] = LogRow) -> None:
        fields = [field.name for field in dataclasses.fields(kind)]
        path, kept = folder / LOG_FILE, []
        if path.exists():
            with open(path, encoding="utf-8", errors="replace", newline="") as stream:
                columns, *rows = [*csv.reader(stream)] or [[]]
            added = ["nan"] * (len(fields) - len(columns))  # columns that an older version did not have
            whole = [row for row in rows if len(row) == len(columns) and row[0].isdecimal()]
            kept = [[*row, *added] for row in whole if int(row[0]) < step]
        write_csv(path, [fields, *kept])
        self._stream = open(path, "a", encoding="utf-8", newline="", buffering=1)  # noqa: SIM115 - see __exit__
        self._writer = csv.writer(self._stream)
        self._board = _tensorboard(folder, step)

    def write(self, row: Any) -> None:
        """Adds a row."""
        self._writer.writerow(dataclasses.astuple(row))
        if self._board is not None:
            (_, step), *figures = dataclasses.asdict(row).items()
            self._board.log_metrics({name: value for name, value in figures if not math.isnan(value)}, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        if self._board is not None:
            self._board.finalize("")


def _tensorboard(folder: Path, step: int) -> Any:
    """Fabric's logger for TensorBoard, or None if that is not installed."""
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    try:
        board = TensorBoardLogger(folder, name="", version=TENSORBOARD, purge_step=step, flush_secs=10)
        board.experiment  # noqa: B018 - opens the file
    except ImportError:
        _logger.info("no log for TensorBoard, which is not installed")
        return None
    return board


def read_log(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of a CSV log, as numbers by column."""
    with open(path, encoding="utf-8", newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
