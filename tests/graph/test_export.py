import json

import networkx as nx
import pytest
import torchvision
from torch_geometric.data import Batch

from ghn_pyg import from_module
from ghn_pyg.graph.export import to_graphml, to_json


@pytest.fixture(scope="module")
def resnet():
    return from_module(torchvision.models.resnet18())


def test_graphml_is_read_by_networkx(resnet):
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


def test_json_is_read_by_networkx(resnet):
    view = nx.node_link_graph(json.loads(to_json(resnet, "resnet18")), edges="edges")
    expected = resnet.to_networkx()
    assert view.graph == {"name": "resnet18", "kept": {}, "tied": {}}
    assert set(view.edges) == set(expected.edges)
    assert view.nodes[1] == {**expected.nodes[1], "shape": [64, 3, 7, 7]}
    assert view.nodes[0] == expected.nodes[0]


def test_kept_parameters_are_exported():
    graph = from_module(torchvision.models.vit_b_32())
    kept = {"class_token": graph.kept["class_token"]}
    assert json.loads(to_json(graph))["graph"]["kept"] == kept
    assert json.loads(nx.parse_graphml(to_graphml(graph)).graph["kept"]) == kept


def test_a_batch_is_refused(resnet):
    with pytest.raises(ValueError, match="expected one graph, got a batch"):
        to_json(Batch.from_data_list([resnet, resnet]))
