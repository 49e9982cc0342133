from pathlib import Path

from ghn_pyg import from_pretrained
from ghn_pyg.bench.parameter_prediction import ParameterTask
from tests.bench.tiny import RECIPE, bench


def test_accuracy_with_a_ghn_that_is_trained_once(tmp_path):
    task, ghn = ParameterTask(**RECIPE, splits=["test", "deep"], count=1), bench().ghn("gcn")
    figures = task.run(ghn, 3, tmp_path / "parameters")
    assert list(figures) == ["test top-1", "deep top-1", "networks that ran"]
    assert figures["networks that ran"] == 1
    assert all(0 <= value <= 1 for value in figures.values())
    (run,) = filter(Path.is_dir, (tmp_path / "ghns").iterdir())
    assert run.name.startswith("gcn-3-")
    log = (run / "log.csv").read_text()
    assert task.run(ghn, 3, tmp_path / "parameters") == figures
    assert (run / "log.csv").read_text() == log
    assert from_pretrained(run / "ghn").config.encoder == "gcn"
