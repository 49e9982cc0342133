"""Ranking of architectures by accuracy, and the agreement of two rankings (Kendall's τ)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..utils.optional import require
from .report import Report, Row


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
