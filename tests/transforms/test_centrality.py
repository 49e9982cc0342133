import torch
from torch_geometric.data import Data

from ghn_pyg.transforms import AddCentrality


def test_degrees():
    data = Data(edge_index=torch.tensor([[0, 0, 3, 0], [1, 2, 2, 2]]), num_nodes=5)
    result = AddCentrality()(data)
    assert result.in_degree.tolist() == [0, 1, 3, 0, 0]
    assert result.out_degree.tolist() == [3, 0, 0, 1, 0]
    assert result.in_degree.dtype == torch.int64
    assert sorted(data.keys()) == ["edge_index", "num_nodes"]


def test_degrees_without_edges():
    result = AddCentrality()(Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=3))
    assert result.in_degree.tolist() == result.out_degree.tolist() == [0, 0, 0]
