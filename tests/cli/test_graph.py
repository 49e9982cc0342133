import os

import networkx as nx
import pytest

from tests.cli.outcomes import failed, small_disk


def test_graph(run):
    code, out, err = run("graph", "resnet18")
    assert (code, err) == (0, "")
    rows = [line for line in out if line and "─" not in line]
    assert rows[:-1] == [
        "resnet18",
        "node type nodes parameters",
        "conv 21 11,678,912",
        "bn 20 9,600",
        "sum 8",
        "input 1",
        "max_pool 1",
        "glob_avg 1",
        "bias 1 1,000",
        "nodes 53",
        "edges 60",
        "depth 46 edges on the longest path",
        "distance 20 edges at most on the shortest path between two nodes, cut at 50",
        "predicted 62 tensors, 11,689,512 parameters",
        "kept none",
    ]
    assert rows[-1].startswith("time 0.")


def test_kept_parameters_are_listed(run):
    _, out, _ = run("graph", "vit_b_32")
    assert "predicted 151 tensors, 88,223,464 parameters" in out
    (kept,) = [line for line in out if line.startswith("kept")]
    assert kept.startswith("kept 1 tensor, 768 parameters: ")
    assert kept.endswith(" (class_token)")


@pytest.mark.parametrize("suffix", ["graphml", "json", "svg"])
def test_graph_is_saved(suffix, run, tmp_path):
    path = tmp_path / f"resnet18.{suffix}"
    code, out, _ = run("graph", "resnet18", "--out", path)
    assert code == 0
    assert out[-1] == f"saved {path}"
    assert "conv1.weight" in path.read_text(encoding="utf-8")
    if suffix == "graphml":
        assert nx.read_graphml(path).graph["name"] == "resnet18"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("resnet_18", "did you mean resnet18 or"),
        ("resnet18 --input 1x3", "Give inputs that fit with --input"),
        ("resnet18 --out {tmp}/x.pdf", "x.pdf: expected a name that ends in .graphml, .json, .svg"),
        ("resnet18 --out {tmp}/a/x.svg", "the folder {tmp}/a does not exist"),
    ],
)
def test_errors_are_one_line_and_write_nothing(arguments, message, run, tmp_path):
    assert message.format(tmp=tmp_path) in failed(run("graph", *arguments.format(tmp=tmp_path).split()))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_the_old_file(run, tmp_path):
    path = tmp_path / "x.svg"
    path.write_text("old")
    with small_disk():
        result = run("graph", "resnet18", "--out", path)
    assert f"cannot write {path}: " in failed(result)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("x.svg", "old")]
