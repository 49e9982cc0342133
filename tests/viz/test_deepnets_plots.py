import pytest

from ghn_pyg.families.deepnets.architecture_sampling import sample
from ghn_pyg.families.deepnets.statistics import measure, operation_shares
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
