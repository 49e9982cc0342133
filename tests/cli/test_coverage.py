import csv

import pytest

from ghn_pyg import coverage
from ghn_pyg.zoo.build import skeleton

CODE = """
import torch
from ghn_pyg import register_layer
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.left = nn.Linear(3, 5), nn.Linear(7, 11)

    def forward(self, x):
        return self.used(x)

def make():
    return Net(), torch.zeros(1, 3)

def whole():
    return nn.Linear(3, 2)

def broken():
    raise LookupError("no data")

class Backwards(nn.Linear):
    pass

@register_layer(Backwards)
def nodes(layer):
    return [("bias", [("bias", "bias")]), ("conv", [("weight", "weight")])]

def backwards():
    return Backwards(3, 2), torch.zeros(1, 3)

class Choosy(nn.Linear):
    def forward(self, x):
        if x.sum() > 100:
            return super().forward(x)
        raise LookupError("too small")

def choosy():
    return Choosy(3, 2), torch.zeros(1, 3)
"""
OWN = "module:coverage_nets:make"
WHOLE = "module:coverage_nets:whole"
BROKEN = "module:coverage_nets:broken"
BACKWARDS = "module:coverage_nets:backwards"
CHOOSY = "module:coverage_nets:choosy"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    (tmp_path / "coverage_nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)


def read(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_one_network(run):
    code, out, err = run("coverage", OWN)
    assert (code, err) == (0, "")
    assert [line for line in out if line and "─" not in line] == [
        OWN,
        "outcome rule or reason tensors elements share parameters",
        "predicted weight of conv 1 15 13.88% used.weight",
        "predicted bias 1 5 4.62% used.bias",
        "kept the forward pass does not use it 2 88 81.48% left.weight, left.bias",
        "tensors 2 of 4 predicted",
        "elements 20 of 108 predicted, 18.51%",
        "layers 14.56% of weight matrices, convolutions, norms and embeddings predicted",
    ]


def test_each_parameter_of_one_network(run, tmp_path):
    code, out, _ = run("coverage", OWN, "--full", "--csv", "own.csv")
    assert code == 0
    assert "left.weight 11×7 77 kept the forward pass does not use it" in out
    assert "used.weight 5×3 15 predicted weight of conv used.weight (conv)" in out
    assert out[-1] == "saved own.csv"
    rows = read(tmp_path / "own.csv")
    assert [row["name"] for row in rows] == ["used.weight", "used.bias", "left.weight", "left.bias"]
    assert rows[2] == {
        "name": "left.weight", "shape": "11x7", "elements": "77", "outcome": "kept",
        "why": "the forward pass does not use it", "node": "", "node_type": "", "tied_to": "",
    }  # fmt: skip


def test_strict_shows_the_table_and_fails(run):
    code, out, err = run("coverage", OWN, "--strict")
    assert (code, err) == (1, "")
    assert out[0] == OWN
    assert out[-1].startswith(f"failed: {OWN}: 1 weight matrix is not predicted. left.weight (11×7): the forward pass")
    assert run("coverage", "squeezenet1_1", "--strict")[0] == 0


def test_several_networks(run, tmp_path):
    code, out, err = run("coverage", "timm/test_vi?", "squeezenet1_1", OWN, "timm/test_vit", "--csv", "all.csv")
    assert (code, err) == (0, "")
    found = coverage(skeleton("timm/test_vit").network)
    lines = [line for line in out if line and "─" not in line]
    assert lines[:2] == ["Coverage", "network nodes tensors kept elements predicted of layers kept weights"]
    assert lines[2].startswith(f"timm/test_vit {found.nodes} 80 {len(found.kept)} 371,240 9")
    assert lines[3].startswith("squeezenet1_1 65 52 0 1,235,496 100.00% 100.00% 0")
    assert lines[4] == f"{OWN} 3 4 2 108 18.51% 14.56% 1"
    assert lines[5] == "networks 3 of 3 without failure"
    assert lines[-1] == "saved all.csv"
    rows = read(tmp_path / "all.csv")
    assert [row["network"] for row in rows] == ["timm/test_vit", "squeezenet1_1", OWN]
    assert (rows[2]["tensors_predicted"], rows[2]["kept_weights"], rows[2]["failure"]) == ("2", "1", "")
    assert float(rows[2]["share"]) == pytest.approx(20 / 108)


def test_failures_stand_beside_the_others(run, tmp_path):
    code, out, err = run("coverage", WHOLE, BROKEN, "resnet_18", OWN, "--csv", "all.csv", "--strict", "--input", "1x3")
    assert (code, err) == (1, "")
    assert "networks 1 of 4 without failure" in out
    assert f"failed: {BROKEN}: LookupError: no data" in out
    assert any(line.startswith("failed: resnet_18: ValueError: torchvision has no network") for line in out)
    assert any(line.startswith(f"failed: {OWN}: CoverageError: 1 weight matrix") for line in out)
    rows = read(tmp_path / "all.csv")
    assert [row["elements"] for row in rows] == ["8", "", "", "108"]
    assert [bool(row["failure"]) for row in rows] == [False, True, True, True]


def test_graphs_are_verified_by_a_real_run(run):
    code, out, err = run("coverage", WHOLE, "--verify", "--input", "1x3")
    assert (code, err) == (0, "")
    assert out[-1] == "verified 2 nodes with parameters compared with a real run, no difference."


def test_what_a_real_run_does_otherwise_fails(run, tmp_path):
    code, out, _ = run("coverage", BACKWARDS, "--verify")
    assert code == 1
    assert "verified 2 nodes with parameters compared with a real run, 2 differences." in out
    code, out, _ = run("coverage", CHOOSY, WHOLE, BACKWARDS, "--verify", "--input", "1x3", "--csv", "all.csv")
    assert code == 1
    assert "networks 1 of 3 without failure" in out
    assert f"failed: {CHOOSY}: it does not run: LookupError: too small" in out
    assert [bool(row["failure"]) for row in read(tmp_path / "all.csv")] == [True, False, True]
