import errno
import json
import os
import xml.etree.ElementTree as ET

import networkx as nx
import pytest
from torch_geometric.data import Batch

from ghn_pyg import from_module
from ghn_pyg.viz.save import FORMATS, save_view, to_graphml, to_json
from ghn_pyg.zoo.torchvision_models import skeleton


@pytest.fixture(scope="module")
def resnet():
    return from_module(skeleton("resnet18"))


def test_graphml_comes_back(resnet):
    view = nx.parse_graphml(to_graphml(resnet, "resnet18"), node_type=int)
    assert isinstance(view, nx.DiGraph)
    assert (len(view), view.number_of_edges()) == (53, 60)
    assert view.graph["name"] == "resnet18"
    assert view.nodes[0] == {"type": "input", "name": "input", "params": "[]"}
    assert view.nodes[1] == {
        "type": "conv",
        "name": "conv1.weight",
        "params": '["conv1.weight"]',
        "shape": "[64, 3, 7, 7]",
    }
    assert view.nodes[2]["params"] == '["bn1.weight", "bn1.bias"]'
    assert set(view.edges) == set(resnet.to_networkx().edges)


def test_json_comes_back(resnet):
    view = nx.node_link_graph(json.loads(to_json(resnet, "resnet18")), edges="edges")
    expected = resnet.to_networkx()
    assert view.graph == {"name": "resnet18", "kept": {}, "tied": {}}
    assert set(view.edges) == set(expected.edges)
    assert view.nodes[1] == {**expected.nodes[1], "shape": [64, 3, 7, 7]}
    assert view.nodes[0] == expected.nodes[0]


def test_kept_parameters_are_part_of_the_exports():
    graph = from_module(skeleton("vit_b_32"))
    kept = {"class_token": graph.kept["class_token"]}
    assert json.loads(to_json(graph))["graph"]["kept"] == kept
    assert json.loads(nx.parse_graphml(to_graphml(graph)).graph["kept"]) == kept


@pytest.mark.parametrize("suffix", [".graphml", ".json", ".svg"])
def test_the_suffix_gives_the_format(suffix, resnet, tmp_path):
    path = tmp_path / f"resnet18{suffix}"
    save_view(resnet, path, "resnet18")
    assert path.read_text(encoding="utf-8") == FORMATS[suffix](resnet, "resnet18")
    assert os.listdir(tmp_path) == [path.name]


def test_the_files_are_what_they_say(resnet, tmp_path):
    for suffix in FORMATS:
        save_view(resnet, tmp_path / f"resnet18{suffix}")
    assert len(nx.read_graphml(tmp_path / "resnet18.graphml")) == 53
    assert len(json.loads((tmp_path / "resnet18.json").read_bytes())["nodes"]) == 53
    assert ET.parse(tmp_path / "resnet18.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("name", ["resnet18.pdf", "resnet18", "resnet18.svg.gz"])
def test_other_suffixes(name, resnet, tmp_path):
    with pytest.raises(ValueError, match=rf"'{name}', expected a file that ends in \.graphml, \.json, \.svg"):
        save_view(resnet, tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_batches_have_no_view(resnet, tmp_path):
    with pytest.raises(ValueError, match="expected one graph, got a batch"):
        save_view(Batch.from_data_list([resnet, resnet]), tmp_path / "resnet18.json")


@pytest.mark.parametrize("suffix", [".graphml", ".json", ".svg"])
def test_a_full_disk_leaves_what_was_there(suffix, resnet, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / f"resnet18{suffix}"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*: No space left on device"):
        save_view(resnet, path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]
