import csv
import json

import networkx as nx
import pytest

from ghn_pyg.cli.options import GRAPH_SUFFIXES, SPLITS
from ghn_pyg.families.deepnets import SPLIT_SIZES
from ghn_pyg.families.deepnets.architecture import Architecture
from ghn_pyg.families.deepnets.architecture_sampling import sample
from ghn_pyg.families.deepnets.published_hdf5 import PublishedDeepNets
from ghn_pyg.families.deepnets.statistics import measure
from ghn_pyg.viz.save import FORMATS


def test_sample_lists_and_saves(run, tmp_path):
    path = tmp_path / "some.json"
    code, out, _ = run("deepnets", "sample", "val", "--count", 3, "--start", 5, "--seed", 2, "--out", path)
    assert code == 0
    expected = [sample("val", index, 2) for index in (5, 6, 7)]
    assert [Architecture.from_args(args) for args in json.loads(path.read_text())] == expected
    first = measure(expected[0])
    assert out[0] == "val: 3 architectures from position 5"
    (row,) = [line for line in out if line.startswith("5 ")]
    assert row.startswith(f"5 {first.nodes:,} {first.parameters:,} {expected[0].cells} ")
    assert row.endswith(", ".join(name for name, _ in expected[0].genotype.normal))


def test_stats_of_every_architecture(run, tmp_path):
    path = tmp_path / "figures.csv"
    code, out, _ = run("deepnets", "stats", "val", "deep", "--count", 3, "--out", path)
    assert code == 0
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["split"], row["position"]) for row in rows] == [(s, str(n)) for s in ("val", "deep") for n in range(3)]
    one = measure(sample("deep", 2))
    assert (int(rows[5]["nodes"]), int(rows[5]["parameters"]), int(rows[5]["depth"])) == one[:3]
    assert int(rows[5]["conv_3x3"]) == one.operations["conv_3x3"]
    mean = sum(int(row["nodes"]) for row in rows[:3]) / 3
    assert any(line.startswith(f"val 3 nodes {mean:,.1f} ") for line in out)


def test_stats_as_a_picture(run, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "statistics.png"
    code, out, _ = run("deepnets", "stats", "val", "test", "--count", 2, "--plot", path)
    assert code == 0
    assert f"saved {path}" in out
    assert path.read_bytes().startswith(b"\x89PNG")


def test_export_is_read_back(run, tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / "own.hdf5"
    code, out, _ = run("deepnets", "export", "bnfree", "--out", path, "--count", 2, "--start", 3, "--seed", 1)
    assert code == 0
    assert out[:2] == ["bnfree", "architectures 2"]
    with PublishedDeepNets(path, "bnfree") as split:
        assert [graph.architecture.key for graph in split] == [sample("bnfree", index, 1).key for index in (3, 4)]


def test_show_draws_one_architecture(run, tmp_path):
    path = tmp_path / "one.graphml"
    code, out, _ = run("deepnets", "show", "wide", 7, "--image-size", 16, "--num-classes", 3, "--out", path)
    assert code == 0
    architecture = sample("wide", 7)
    assert f"cells {architecture.cells}, width 128 × {architecture.multiplier} at each reduction" in out
    graph = nx.read_graphml(path)
    assert any(line.startswith(f"nodes {graph.number_of_nodes():,}, {graph.number_of_edges():,} edges") for line in out)


def test_what_the_command_line_knows_before_torch_is_imported():
    assert tuple(SPLIT_SIZES) == SPLITS
    assert tuple(FORMATS) == GRAPH_SUFFIXES
