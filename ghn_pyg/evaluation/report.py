"""Results of an evaluation: a row for each network, means over all of them, and their ranking."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..models.published_norms import published_norm
from ..utils.atomic_files import write_csv, write_text
from ..utils.optional import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The result of one network.

    Args:
        name: Name of the network.
        top1: Top-1 accuracy, from 0 to 1; ``None`` if the network failed.
        top5: Top-5 accuracy, from 0 to 1; ``None`` if the network failed, NaN with up to five classes.
        nodes: Nodes of its graph.
        parameters: Number of its parameters.
        total_norm: L2 norm of all predicted parameters; ``None`` if none were predicted.
        seconds: Time to build, predict and measure it.
        failure: The error, if it failed.
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
    """The results of all networks of an evaluation.

    Args:
        rows: A row for each network.
        settings: Settings of the evaluation, as plain values.

    Example:
        >>> report = Report([Row(name="a", top1=0.5, top5=1), Row(name="b", failure="out of memory")], {})
        >>> report.mean("top1"), report.coverage
        (0.5, 0.5)
    """

    rows: Sequence[Row]
    settings: Mapping[str, Any]

    @property
    def successes(self) -> list[Row]:
        """The rows of networks that ran."""
        return [row for row in self.rows if row.failure is None]

    @property
    def failures(self) -> dict[str, str]:
        """The errors of networks that failed, by name."""
        return {row.name: row.failure for row in self.rows if row.failure is not None}

    @property
    def coverage(self) -> float:
        """The fraction of networks that ran, from 0 to 1; NaN without rows."""
        return len(self.successes) / len(self.rows) if self.rows else math.nan

    def mean(self, field: str) -> float:
        """The mean of a field, such as ``"top1"``, over the networks that have it; NaN if none does."""
        values = self._values(field)
        return statistics.fmean(values) if values else math.nan

    def std(self, field: str) -> float:
        """The sample standard deviation of a field over the networks that have it; NaN for fewer than two."""
        values = self._values(field)
        return statistics.stdev(values) if len(values) > 1 else math.nan

    def _values(self, field: str) -> list[float]:
        values = (getattr(row, field) for row in self.successes)
        return [value for value in values if not math.isnan(value)]

    def norm_errors(self, ghn_name: str, tolerance: float = 1e-2) -> dict[str, tuple[float, float]]:
        """Predicted and published total norm of networks of torchvision where they differ.

        Raises:
            ValueError: If no norm of a GHN, such as ``"ghn3tm8"``, is published for any of the networks.
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
        """Settings, means over all networks, and the rows, as plain values for JSON."""
        return {
            "settings": dict(self.settings),
            "networks": len(self.rows),
            "coverage": _plain(self.coverage),
            "top1_mean": _plain(self.mean("top1")),
            "top1_std": _plain(self.std("top1")),
            "top5_mean": _plain(self.mean("top5")),
            "top5_std": _plain(self.std("top5")),
            "failures": self.failures,
            "rows": [{name: _plain(value) for name, value in vars(row).items()} for row in self.rows],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the report as ``.json``, or its rows as ``.csv``; raises a ValueError for another suffix."""
        path = Path(path)
        if path.suffix not in (".json", ".csv"):
            raise ValueError(f"cannot save a report as {path}; expected a name that ends in .json or .csv")
        if path.suffix == ".json":
            write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        else:
            names = [field.name for field in dataclasses.fields(Row)]
            write_csv(path, [names, *map(dataclasses.astuple, self.rows)])


def _plain(value: Any) -> Any:
    """``None`` for NaN and infinity, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def ranked(report: Report) -> list[Row]:
    """The networks that ran, by decreasing top-1 accuracy; ties keep their order.

    With predicted parameters, ranking a network costs one forward pass of the GHN and one over the test images instead
    of a training run, as in the architecture search of SMASH (arXiv 1708.05344) and GHN-1 (arXiv 1810.05749).

    Example:
        >>> [row.name for row in ranked(Report([Row(name="a", top1=0.5), Row(name="b", top1=0.7)], {}))]
        ['b', 'a']
    """
    return sorted(report.successes, key=lambda row: -(row.top1 or 0.0))


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's τ-b between two lists of values, from -1 to 1; NaN where it is undefined, as for constant values.

    Example:
        >>> round(kendall_tau([1, 2, 3], [2, 4, 3]), 3)
        0.333
    """
    if len(first) < 2:
        return math.nan
    return float(require("scipy.stats", "train", "rank correlations").kendalltau(first, second).statistic)


def agreement(report: Report, other: Report) -> float:
    """Kendall's τ between the top-1 accuracies of the same networks in two reports; see :func:`kendall_tau`.

    Networks that failed in either report are left out.
    """
    top1 = {row.name: row.top1 or 0.0 for row in other.successes}
    common = [row for row in report.successes if row.name in top1]
    return kendall_tau([row.top1 or 0.0 for row in common], [top1[row.name] for row in common])
