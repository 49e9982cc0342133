import math

import pytest

from ghn_pyg.evaluation import Report, Row, agreement, ranked


def report(**accuracies):
    rows = [Row(name=name, failure="no" if value is None else None, top1=value) for name, value in accuracies.items()]
    return Report(rows, {})


def test_the_best_come_first():
    rows = ranked(report(a=0.3, b=None, c=0.7, d=0.3, e=0.5))
    assert [row.name for row in rows] == ["c", "e", "a", "d"]


@pytest.mark.parametrize(
    ("other", "tau"),
    [
        ({"d": 0.9, "c": 0.8, "b": 0.7, "a": 0.6}, 1),
        ({"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}, -1),
        ({"a": 0.1, "b": 0.3, "c": 0.2, "d": 0.4}, 2 / 3),
        ({"a": 0.1, "b": None, "c": 0.2}, 1),  # of the networks that ran in both
        ({"a": 0.5, "b": 0.5}, math.nan),
        ({"a": 0.5}, math.nan),
    ],
)
def test_agreement(other, tau):
    assert agreement(report(a=0.1, b=0.2, c=0.3, d=0.4), report(**other)) == pytest.approx(tau, nan_ok=True)
