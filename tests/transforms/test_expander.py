import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import is_undirected

from ghn_pyg.transforms import AddExpanderEdges, AddShortestPathDistance


def empty(nodes):
    return Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=nodes)


@pytest.mark.parametrize("nodes", [1, 2, 3, 47])
def test_it_is_regular_and_undirected(nodes):
    edges = AddExpanderEdges(4, seed=3)(empty(nodes)).expander_index
    assert is_undirected(edges, num_nodes=nodes)
    assert (edges[0] != edges[1]).all()
    degree = torch.bincount(edges[0], minlength=nodes)
    assert degree.max() <= min(4, max(0, nodes - 1))
    assert degree.min() >= min(2, nodes - 1)


def test_any_node_is_near():
    data = AddExpanderEdges(6, seed=3)(empty(509))
    far = AddShortestPathDistance()(Data(edge_index=data.expander_index, num_nodes=509)).distance
    assert 3 <= far.max() <= 6


def test_seeds_and_batches():
    first, second = (AddExpanderEdges(4, seed=3)(empty(11)).expander_index for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(AddExpanderEdges(4)(empty(11)).expander_index, AddExpanderEdges(4)(empty(11)).expander_index)
    batch = Batch.from_data_list([AddExpanderEdges(4, seed=3)(empty(nodes)) for nodes in (5, 11)])
    assert torch.equal(batch.expander_index[:, -first.size(1) :], first + 5)
    with pytest.raises(TypeError, match="apply the transform to each graph before"):
        AddExpanderEdges()(batch)


@pytest.mark.parametrize("degree", [0, 3])
def test_degrees_are_even(degree):
    with pytest.raises(ValueError, match=f"degree must be an even number from 2 on, got {degree}"):
        AddExpanderEdges(degree)
