import csv
import json
import math

import pytest

from ghn_pyg.evaluation import Report, Row, agreement, ranked

ROWS = [
    Row(name="a", top1=0.5, top5=0.75, nodes=3, parameters=11, total_norm=2.5, seconds=0.5),
    Row(name="b", failure="RuntimeError: out of memory", nodes=5),
    Row(name="c", top1=0.25, top5=1.0, nodes=7, parameters=13, total_norm=math.inf, seconds=1.5),
]


def test_means_over_the_networks_that_ran():
    report = Report(ROWS, {})
    assert (report.mean("top1"), report.mean("top5")) == (0.375, 0.875)
    assert report.std("top1") == pytest.approx(0.125 * 2**0.5)
    assert report.coverage == pytest.approx(2 / 3)
    assert report.failures == {"b": "RuntimeError: out of memory"}


@pytest.mark.parametrize("rows", [[], ROWS[1:2], ROWS[:1]])
def test_means_over_few_networks(rows):
    report = Report(rows, {})
    assert math.isnan(report.std("top1"))
    assert math.isnan(report.mean("top1")) == (rows != ROWS[:1])
    assert report.to_dict()["top1_std"] is None


@pytest.mark.parametrize(
    ("norm", "errors"), [(72.4866, []), (72.4876, ["alexnet"]), (math.nan, ["alexnet"])], ids=["near", "far", "nan"]
)
def test_published_norms(norm, errors):
    rows = [Row(name="alexnet", total_norm=norm), Row(name="own", total_norm=1.0), Row(name="vgg11", failure="no")]
    found = Report(rows, {}).norm_errors("ghn3xlm16")
    assert list(found) == errors
    assert all(published == 72.4766 for _, published in found.values())
    with pytest.raises(ValueError, match="no norm of 'ghn3' is published for any of the 2 networks"):
        Report(rows, {}).norm_errors("ghn3")


def test_json_and_csv(tmp_path):
    report = Report(ROWS, {"seed": 3})
    report.save(tmp_path / "report.json")
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["settings"] == {"seed": 3}
    assert (values["networks"], values["coverage"], values["top1_mean"]) == (3, pytest.approx(2 / 3), 0.375)
    assert values["rows"][1]["failure"] == "RuntimeError: out of memory"
    assert [row["total_norm"] for row in values["rows"]] == [2.5, None, None]
    report.save(tmp_path / "report.csv")
    with open(tmp_path / "report.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["top1"] for row in rows] == ["0.5", "", "0.25"]
    with pytest.raises(ValueError, match=r"expected a name that ends in \.json or \.csv"):
        report.save(tmp_path / "report.txt")


def of_accuracies(**accuracies):
    rows = [Row(name=name, failure="no" if value is None else None, top1=value) for name, value in accuracies.items()]
    return Report(rows, {})


def test_the_best_come_first():
    rows = ranked(of_accuracies(a=0.3, b=None, c=0.7, d=0.3, e=0.5))
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
    report = of_accuracies(a=0.1, b=0.2, c=0.3, d=0.4)
    assert agreement(report, of_accuracies(**other)) == pytest.approx(tau, nan_ok=True)


def test_there_is_no_top5_accuracy_with_few_classes():
    report = Report([Row(name="a", top1=0.5, top5=math.nan), Row(name="b", top1=0.75, top5=math.nan)], {})
    assert report.mean("top1") == 0.625
    assert math.isnan(report.mean("top5"))
    assert math.isnan(report.std("top5"))
    assert report.to_dict()["rows"][0]["top5"] is None
