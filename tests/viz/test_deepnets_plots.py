import sys

import pytest

from ghn_pyg.families.deepnets import measure, operation_shares, sample
from ghn_pyg.viz.deepnets_plots import plot_statistics


def test_every_split_and_operation_is_named(tmp_path):
    pytest.importorskip("matplotlib").rcParams["svg.fonttype"] = "none"
    path = tmp_path / "some.svg"
    measured = {split: [measure(sample(split, index)) for index in range(3)] for split in ("val", "bnfree")}
    plot_statistics(measured, path)
    text = path.read_text()
    for word in ("val (3)", "bnfree (3)", "nodes", "parameters", "depth", "conv_7x1_1x7", "operations, %"):
        assert f">{word}<" in text
    assert ">DeepNets-1M by split (number of architectures): median, middle half, and all but the outermost 5 %" in text
    for shares in map(operation_shares, measured.values()):
        for share in shares.values():
            assert f">{100 * share:.0f}<" in text


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "ghn_pyg\[plot\]"'):
        plot_statistics({"val": [measure(sample("val", 0))]}, tmp_path / "some.png")
    assert list(tmp_path.iterdir()) == []
