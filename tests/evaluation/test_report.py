import csv
import json
import math
import os

import pytest

from ghn_pyg.evaluation.report import Report, Row

ROWS = [
    Row(name="a", top1=0.5, top5=0.75, nodes=3, parameters=11, total_norm=2.5, seconds=0.5),
    Row(name="b", failure="RuntimeError: out of memory", nodes=5),
    Row(name="c", top1=0.25, top5=1.0, nodes=7, parameters=13, total_norm=3.5, seconds=1.5),
]


def test_figures():
    report = Report(ROWS, {})
    assert report.mean("top1") == 0.375
    assert report.std("top1") == pytest.approx(0.125 * 2**0.5)
    assert report.mean("top5") == 0.875
    assert report.coverage == pytest.approx(2 / 3)
    assert report.failures == {"b": "RuntimeError: out of memory"}


def test_figures_over_nothing():
    report = Report(ROWS[1:2], {})
    assert report.coverage == 0
    assert math.isnan(report.mean("top1"))
    assert math.isnan(report.std("top1"))
    assert math.isnan(Report(ROWS[:1], {}).std("top1"))
    assert math.isnan(Report([], {}).coverage)
    assert report.to_dict()["top1_mean"] is None


def test_norms():
    rows = [
        Row(name="alexnet", total_norm=72.4866),
        Row(name="resnet18", total_norm=1.0),
        Row(name="own", total_norm=1.0),
        Row(name="vgg11", failure="no"),
    ]
    errors = Report(rows, {}).norm_errors("ghn3xlm16")
    assert list(errors) == ["resnet18"]
    assert errors["resnet18"][0] == 1.0
    assert Report([Row(name="alexnet", total_norm=72.4876)], {}).norm_errors("ghn3xlm16") == {
        "alexnet": (72.4876, 72.4766)
    }
    assert list(Report([Row(name="alexnet", total_norm=math.nan)], {}).norm_errors("ghn3xlm16")) == ["alexnet"]
    with pytest.raises(ValueError, match="no norm of 'ghn3' is published for any of the 3 networks"):
        Report(rows, {}).norm_errors("ghn3")


def test_json_and_csv(tmp_path):
    report = Report(ROWS, {"seed": 3})
    report.save(tmp_path / "report.json")
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["settings"] == {"seed": 3}
    assert (values["networks"], values["coverage"], values["top1_mean"]) == (3, pytest.approx(2 / 3), 0.375)
    assert values["rows"][1]["failure"] == "RuntimeError: out of memory"
    report.save(tmp_path / "report.csv")
    with open(tmp_path / "report.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["top1"] for row in rows] == ["0.5", "", "0.25"]
    assert rows[1]["failure"] == "RuntimeError: out of memory"
    with pytest.raises(ValueError, match=r"expected a name that ends in \.json or \.csv"):
        report.save(tmp_path / "report.txt")


def test_a_norm_that_is_not_finite_is_none_in_json(tmp_path):
    rows = [
        Row(name="a", top1=0.1, top5=0.5, total_norm=math.inf),
        Row(name="b", top1=0.1, top5=0.5, total_norm=math.nan),
    ]
    Report(rows, {}).save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [(row["top1"], row["total_norm"]) for row in saved] == [(0.1, None), (0.1, None)]


def test_what_was_there_stays_when_writing_fails(tmp_path, full_disk):
    path = tmp_path / "report.json"
    path.write_text("older")
    with pytest.raises(OSError, match=r"report\.json: No space left on device"):
        Report(ROWS, {}).save(path)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["report.json"]
