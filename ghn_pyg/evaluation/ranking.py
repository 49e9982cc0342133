"""Ranking of architectures without training them, for neural architecture search."""

from __future__ import annotations

import importlib
from typing import Any

from .report import Report, Row


def ranked(report: Report) -> list[Row]:
    """The networks that ran, those of the highest top-1 accuracy first; networks as good keep their order.

    With predicted parameters a network costs a forward pass of the GHN and one over the test images, not a training
    run: SMASH and GHN-1 (arXiv 1810.05749) search architectures like this.

    Example:
        >>> [row.name for row in ranked(Report([Row(name="a", top1=0.5), Row(name="b", top1=0.7)], {}))]
        ['b', 'a']
    """
    return sorted(report.successes, key=lambda row: -(row.top1 or 0.0))


def check_scipy() -> Any:
    """SciPy's statistics, or an error that says what to do where it is missing."""
    try:
        return importlib.import_module("scipy.stats")
    except ImportError as error:
        raise ImportError('Kendall\'s τ needs SciPy; install it with: pip install "ghn_pyg[train]"') from error


def agreement(report: Report, other: Report) -> float:
    """Kendall's τ between the accuracies of the same networks in two reports, from -1 to 1; NaN for a constant.

    Args:
        report: Such as that with predicted parameters.
        other: Such as that with trained ones. Networks that failed in either are left out.

    Raises:
        ImportError: If SciPy is missing.
    """
    kendalltau = check_scipy().kendalltau
    values = {row.name: row.top1 for row in other.successes}
    pairs = [(row.top1, values[row.name]) for row in report.successes if row.name in values]
    return float(kendalltau(*zip(*pairs, strict=True)).statistic) if len(pairs) > 1 else float("nan")
