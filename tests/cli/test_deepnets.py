import csv
import json
import sys

import networkx as nx
import pytest
from ghn_pyg.cli.console import GRAPH_SUFFIXES, SPLITS

from ghn_pyg.families.deepnets import sampling
from ghn_pyg.families.deepnets.architecture import Architecture
from ghn_pyg.families.deepnets.genotype import DARTS, VIT
from ghn_pyg.families.deepnets.published import PublishedDeepNets
from ghn_pyg.families.deepnets.sampling import sample
from ghn_pyg.families.deepnets.statistics import measure
from ghn_pyg.viz.save import FORMATS
from tests.cli.outcomes import failed, small_disk


def test_help_names_every_command(run):
    code, out, _ = run("deepnets", "--help")
    assert code == 0
    assert {"sample", "stats", "export", "show"} <= set(" ".join(out).split())


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


def test_stats_of_a_small_split_are_of_all_of_it(run, monkeypatch):
    monkeypatch.setitem(sampling.SPLIT_SIZES, "wide", 2)
    code, out, _ = run("deepnets", "stats", "wide", "--count", 3)
    assert code == 0
    assert any(line.startswith("wide 2 nodes ") for line in out)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_stats_as_a_picture(run, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"statistics.{suffix}"
    code, out, _ = run("deepnets", "stats", "val", "test", "--count", 2, "--plot", path)
    assert code == 0
    assert f"saved {path}" in out
    start = path.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in start or b"<!DOCTYPE svg" in start


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sample", "trian"), "unknown split 'trian'; did you mean train?"),
        (("show", "val", 500), "split 'val' has positions 0 to 499, got 500"),
        (("sample", "val", "--start", 495, "--count", 6), "positions 0 to 499, got 495 to 500"),
        (("show", "predefined", 0), "unknown split 'predefined'; expected one of train, val, test, wide, deep, dense"),
        (("stats", "val", "foo"), "unknown split 'foo'; expected one of train, val,"),
        (("export", "tset", "--out", "x.hdf5"), "unknown split 'tset'; did you mean test?"),
        (("stats", "val", "--count", 1, "--image-size", 2), "image_size must be at least 4, got 2"),
        (("sample", "--out", "some.txt"), "expected a name that ends in .json"),
        (("stats", "--out", "figures.txt"), "expected a name that ends in .csv"),
        (("stats", "--plot", "figures.csv"), "expected a name that ends in .png, .svg, .pdf"),
        (("export", "val", "--out", "no/such/folder.hdf5"), "there is no folder no/such"),
        (
            ("show", "val", 1, "--out", "one.bmp"),
            "cannot save a graph as one.bmp, expected a name that ends in .graphml, .json, .svg",
        ),
    ],
)
def test_wrong_requests(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in failed(run("deepnets", *arguments))
    assert list(tmp_path.iterdir()) == []


def test_what_the_command_line_knows_before_torch_is_imported():
    assert tuple(sampling.SPLIT_SIZES) == SPLITS
    assert tuple(FORMATS) == GRAPH_SUFFIXES


def test_a_picture_without_matplotlib_fails_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert 'pip install "ghn_pyg[plot]"' in failed(run("deepnets", "stats", "val", "--plot", tmp_path / "some.png"))


@pytest.mark.parametrize(
    ("changes", "stem"),
    [
        ({"stem_kernel": 7}, "one 7×7 convolution"),
        ({"stem_pool": True}, "one 3×3 convolution, max-pool"),
        ({"stem_type": 1, "stem_kernel": 5}, "three convolutions, the first 5×5"),
        ({"genotype": VIT, "preprocess": False}, "patches"),
    ],
)
def test_show_says_what_the_stem_is(run, monkeypatch, changes, stem):
    architecture = Architecture(**{"genotype": DARTS, "cells": 4, **changes})
    monkeypatch.setattr(sampling, "sample", lambda *_: architecture)
    assert f"stem {stem}" in run("deepnets", "show", "val", 0)[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "val", "--count", 3, "--out", "kept.json"),
        ("stats", "val", "--count", 20, "--out", "kept.csv"),
        ("export", "val", "--count", 2, "--out", "kept.hdf5"),
        ("show", "val", 3, "--out", "kept.svg"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_full_disk_leaves_the_older_file(run, tmp_path, monkeypatch, arguments):
    if arguments[0] == "export":
        pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    older = tmp_path / arguments[-1]
    older.write_text("older")
    with small_disk():
        code, _, err = run("deepnets", *arguments)
    assert code == 2
    assert "File too large" in err
    assert older.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == [older.name]
