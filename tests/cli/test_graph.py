import networkx as nx
import pytest


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
