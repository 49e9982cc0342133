import math

import pytest

from ghn_pyg.evaluation.ranking import agreement, ranked
from ghn_pyg.evaluation.report import Report, Row


def report(**accuracies):
    rows = [Row(name=name, failure="no" if value is None else None, top1=value) for name, value in accuracies.items()]
    return Report(rows, {})


def test_the_best_come_first():
    rows = ranked(report(a=0.3, b=None, c=0.7, d=0.3, e=0.5))
    assert [row.name for row in rows] == ["c", "e", "a", "d"]


def test_agreement():
    first = report(a=0.1, b=0.2, c=0.3, d=0.4)
    assert agreement(first, report(d=0.9, c=0.8, b=0.7, a=0.6)) == pytest.approx(1)
    assert agreement(first, report(a=0.9, b=0.8, c=0.7, d=0.6)) == pytest.approx(-1)
    assert agreement(first, report(a=0.1, b=0.3, c=0.2, d=0.4)) == pytest.approx(2 / 3)
    assert agreement(first, report(a=0.1, b=None, c=0.2)) == pytest.approx(1)  # of those that ran in both
    assert math.isnan(agreement(first, report(a=0.5, b=0.5)))
    assert math.isnan(agreement(first, report(a=0.5)))
