import pytest
import torch
from torch_geometric.data import Data

from ghn_pyg.transforms import AddCentrality, AddShortestPathDistance, AddShortestPathEdges, AddShortestPathPairs


def test_degrees():
    data = Data(edge_index=torch.tensor([[0, 0, 3, 0], [1, 2, 2, 2]]), num_nodes=5)
    result = AddCentrality()(data)
    assert result.in_degree.tolist() == [0, 1, 3, 0, 0]
    assert result.out_degree.tolist() == [3, 0, 0, 1, 0]
    assert result.in_degree.dtype == torch.int64
    assert sorted(data.keys()) == ["edge_index", "num_nodes"]


def test_without_edges():
    result = AddCentrality()(Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=3))
    assert result.in_degree.tolist() == result.out_degree.tolist() == [0, 0, 0]


@pytest.mark.parametrize("edge", [(0, 3), (-1, 0)])
def test_nodes_that_there_are_not(edge):
    data = Data(edge_index=torch.tensor([[edge[0]], [edge[1]]]), num_nodes=3)
    with pytest.raises(ValueError, match=f"edges name nodes {min(edge)} to {max(edge)} of a graph of 3 nodes; set num"):
        AddCentrality()(data)


@pytest.mark.parametrize(
    "transform", [AddCentrality(), AddShortestPathDistance(), AddShortestPathEdges(), AddShortestPathPairs(2)]
)
def test_data_without_edge_index(transform):
    with pytest.raises(ValueError, match=r"edge_index expected the shape \(2, E\), got none; give a graph without"):
        transform(Data(x=torch.zeros(3, 2)))
    with pytest.raises(ValueError, match=r"edge_index expected the shape \(2, E\), got \(3, 2\)"):
        transform(Data(edge_index=torch.zeros(3, 2, dtype=torch.long), num_nodes=3))
