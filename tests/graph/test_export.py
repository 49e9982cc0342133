import json

import networkx as nx
import pytest
from torch_geometric.data import Batch

from ghn_pyg import from_module
from ghn_pyg.graph import to_graphml, to_json
from ghn_pyg.zoo.torchvision_models import skeleton


@pytest.fixture(scope="module")
def resnet():
    return from_module(skeleton("resnet18"))


def test_graphml_round_trip(resnet):
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


def test_json_round_trip(resnet):
    view = nx.node_link_graph(json.loads(to_json(resnet, "resnet18")), edges="edges")
    expected = resnet.to_networkx()
    assert view.graph == {"name": "resnet18", "kept": {}, "tied": {}}
    assert set(view.edges) == set(expected.edges)
    assert view.nodes[1] == {**expected.nodes[1], "shape": [64, 3, 7, 7]}
    assert view.nodes[0] == expected.nodes[0]


def test_kept_parameters_are_exported():
    graph = from_module(skeleton("vit_b_32"))
    kept = {"class_token": graph.kept["class_token"]}
    assert json.loads(to_json(graph))["graph"]["kept"] == kept
    assert json.loads(nx.parse_graphml(to_graphml(graph)).graph["kept"]) == kept


@pytest.mark.parametrize("export", [to_graphml, to_json])
def test_batches_cannot_be_exported(export, resnet):
    with pytest.raises(ValueError, match="expected one graph, got a batch"):
        export(Batch.from_data_list([resnet, resnet]))
