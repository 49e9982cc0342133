import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import AddRandomWalkPE

from ghn_pyg.nn import GPS
from tests.properties import assert_close
from tests.transforms.test_distances import any_graph


def graph(nodes, steps=7):
    data = any_graph(nodes, 2 * nodes, seed=nodes)
    edges = torch.cat((data.edge_index, data.edge_index.flip(0)), 1)
    data = Data(x=torch.arange(nodes) % 5, edge_index=edges, edge_attr=torch.arange(edges.size(1)) % 3)
    return AddRandomWalkPE(steps)(data)


def test_published_sizes():
    assert sum(weight.numel() for weight in GPS.zinc().parameters()) == 423_717


def test_a_batch_is_its_graphs():
    torch.manual_seed(3)
    model = GPS(node_types=5, edge_types=3, out_channels=2, steps=7, walk_channels=4, channels=12, layers=2).eval()
    graphs = [graph(7), graph(11)]
    found = model(Batch.from_data_list(graphs))
    assert_close(found, torch.cat([model(one) for one in graphs]), 1e-4)
    assert found.shape == (2, 2)


def test_all_parameters_are_trained():
    model = GPS(node_types=5, edge_types=3, steps=7, walk_channels=4, channels=12, layers=2, dropout=0.1)
    model(Batch.from_data_list([graph(7), graph(11)])).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("name", ["random_walk_pe", "edge_attr"])
def test_what_is_missing_is_named(name):
    data = graph(7, 20)
    del data[name]
    with pytest.raises(ValueError, match=name):
        GPS.zinc()(data)
