"""The log of a run: a CSV file with one row for each step."""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path
from typing import Self

from ..files import replacing


@dataclasses.dataclass(frozen=True)
class LogRow:
    """What is logged of a step.

    Args:
        step: From 0 on.
        epoch: Passes over the training images before it.
        loss: Mean over all networks of all ranks.
        top1: Accuracy on the training images, from 0 to 1, likewise.
        norm: Norm of the gradient before clipping.
        rate: Learning rate.
        scale: Factor of the loss in half precision, else 1.
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
            with open(path, encoding="utf-8", newline="") as stream:
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


def read_log(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of a log, whose values are all numbers."""
    with open(path, encoding="utf-8", newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
