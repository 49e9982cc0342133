"""The logs of a run: a CSV file with one row for each step, and the same for TensorBoard."""

from __future__ import annotations

import csv
import dataclasses
import logging
import os
from pathlib import Path
from typing import Any, Final, Self

from ..utils.atomic_files import replacing

_FLUSH: Final = 10

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LogRow:
    """What is logged of a step.

    Args:
        step: From 0 on.
        epoch: Passes over the training images before it.
        loss: Mean over all networks of all ranks; with balanced gradients each counts as 10 at most.
        top1: Accuracy on the training images, from 0 to 1, likewise.
        norm: Norm of the gradient before clipping.
        rate: Learning rate.
        scale: Factor of the loss in half precision, else 1.
        left_out: Networks that were left out, as their gradient was not finite (with balanced gradients).
        skipped: 1 if the step was left out, as its loss or gradient was not finite.
        seconds: What the step took.
        architectures: Architectures of the step, on all ranks together.
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


FIELDS = [field.name for field in dataclasses.fields(LogRow)]


class CSVLog:
    """Appends rows to a CSV file, in a ``with`` statement; a row that is written survives the end of the process.

    Args:
        path: The file. It keeps the rows of the steps before ``step``, and loses others.
        step: The step that the run goes on with.
    """

    def __init__(self, path: str | os.PathLike[str], step: int) -> None:
        path = Path(path)
        kept = []
        if path.exists():
            with open(path, encoding="utf-8", errors="replace", newline="") as stream:  # rows that are none are lost
                rows = [row for row in csv.reader(stream) if len(row) == len(FIELDS) and row[0].isdecimal()]
            kept = [row for row in rows if int(row[0]) < step]
        with replacing(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([FIELDS, *kept])
        self._stream = open(path, "a", encoding="utf-8", newline="", buffering=1)  # noqa: SIM115 - see __exit__
        self._writer = csv.writer(self._stream)

    def write(self, row: LogRow) -> None:
        """Appends a row."""
        self._writer.writerow(dataclasses.astuple(row))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


class TensorBoardLog:
    """Writes rows as scalars for TensorBoard, in a ``with`` statement; where it is not installed, nothing.

    Args:
        folder: Where its files go.
        step: The step that the run goes on with; later ones from before are not shown any more.
    """

    def __init__(self, folder: str | os.PathLike[str], step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            _logger.info("no log for TensorBoard, which is not installed")
            self._writer: Any = None
            return
        self._writer = SummaryWriter(os.fspath(folder), purge_step=step, flush_secs=_FLUSH)

    def write(self, row: LogRow) -> None:
        """Adds a row."""
        if self._writer is None:
            return
        for name, value in dataclasses.asdict(row).items():
            if name != "step":
                self._writer.add_scalar(name, value, row.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


def read_log(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of a log, whose values are all numbers."""
    with open(path, encoding="utf-8", newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
