"""The outcome of an evaluation: one row for each network, and figures over all of them."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..models.published_norms import published_norm
from ..utils.atomic_files import replacing

NORM_TOLERANCE: Final = 1e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The outcome for one network.

    Args:
        name: The network's name.
        top1: Share of images, from 0 to 1, whose class is its first choice; ``None`` if it failed.
        top5: Share of images whose class is among its first five choices; ``None`` if it failed.
        nodes: Nodes of its graph.
        parameters: Number of its parameters.
        total_norm: L2 norm over all predicted parameters together; ``None`` if none were predicted.
        seconds: Time that making, predicting and running it took.
        failure: What went wrong; ``None`` if nothing did.
    """

    name: str
    top1: float | None = None
    top5: float | None = None
    nodes: int | None = None
    parameters: int | None = None
    total_norm: float | None = None
    seconds: float | None = None
    failure: str | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome for all networks of an evaluation.

    Args:
        rows: One for each network, in their order.
        settings: How it was evaluated, as plain values.

    Example:
        >>> report = Report([Row(name="a", top1=0.5, top5=1), Row(name="b", failure="out of memory")], {})
        >>> report.mean("top1"), report.coverage
        (0.5, 0.5)
    """

    rows: Sequence[Row]
    settings: Mapping[str, Any]

    @property
    def successes(self) -> list[Row]:
        """The networks that ran."""
        return [row for row in self.rows if row.failure is None]

    @property
    def failures(self) -> dict[str, str]:
        """The networks that failed, each with the reason."""
        return {row.name: row.failure for row in self.rows if row.failure is not None}

    @property
    def coverage(self) -> float:
        """The share of networks that ran, from 0 to 1."""
        return len(self.successes) / len(self.rows) if self.rows else math.nan

    def mean(self, figure: str) -> float:
        """The mean of a figure, such as ``"top1"``, over the networks that ran; NaN where none did."""
        values = [getattr(row, figure) for row in self.successes]
        return statistics.fmean(values) if values else math.nan

    def std(self, figure: str) -> float:
        """The standard deviation of a figure over the networks that ran, that of the sample; NaN for fewer than two."""
        values = [getattr(row, figure) for row in self.successes]
        return statistics.stdev(values) if len(values) > 1 else math.nan

    def norm_errors(self, ghn_name: str, tolerance: float = NORM_TOLERANCE) -> dict[str, tuple[float, float]]:
        """Networks of torchvision whose predicted parameters do not have the published total norm.

        Args:
            ghn_name: A published GHN, such as ``"ghn3tm8"``.
            tolerance: Largest difference.

        Returns:
            The norm that came and the published one, by name.

        Raises:
            ValueError: If no norm is published for any of the networks.
        """
        pairs = {
            row.name: (row.total_norm, published)
            for row in self.successes
            if row.total_norm is not None and (published := published_norm(row.name, ghn_name)) is not None
        }
        if not pairs:
            raise ValueError(f"no norm of {ghn_name!r} is published for any of the {len(self.successes)} networks")
        return {name: pair for name, pair in pairs.items() if not abs(pair[0] - pair[1]) <= tolerance}

    def to_dict(self) -> dict[str, Any]:
        """Settings, figures over all networks, and the rows, as plain values."""
        figures = {f"{figure}_{kind.__name__}": _plain(kind(figure)) for figure in ("top1", "top5")
                   for kind in (self.mean, self.std)}  # fmt: skip
        return {
            "settings": dict(self.settings),
            "networks": len(self.rows),
            "coverage": _plain(self.coverage),
            **figures,
            "failures": self.failures,
            "rows": [
                {name: _plain(value) if isinstance(value, float) else value for name, value in vars(row).items()}
                for row in self.rows
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the report as ``.json``, or its rows as ``.csv``; it is complete or not there at all.

        Raises:
            ValueError: If the name ends in anything else.
            OSError: If it cannot be written; what was there before stays.
        """
        path = Path(path)
        if path.suffix not in (".json", ".csv"):
            raise ValueError(f"cannot save a report as {path}, expected a name that ends in .json or .csv")
        with replacing(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="") as stream:
            if path.suffix == ".json":
                stream.write(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
            else:
                writer = csv.DictWriter(stream, [field.name for field in dataclasses.fields(Row)])
                writer.writeheader()
                writer.writerows(dataclasses.asdict(row) for row in self.rows)


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
