import pytest
import torch
from torch_geometric.data import Batch

from ghn_pyg.transforms import AddShortestPathDistance, AddShortestPathPairs, frontier_bfs
from tests.transforms.test_distances import DIRECTED, GRAPHS, any_graph, chain


@DIRECTED
@pytest.mark.parametrize("cutoff", [1, 2, 5, 300])
@pytest.mark.parametrize("pairs_at_a_time", [211, 1 << 22])
def test_near_pairs_are_those_of_the_distance_matrix(cutoff, directed, pairs_at_a_time, monkeypatch):
    monkeypatch.setattr(frontier_bfs, "_PAIRS_AT_A_TIME", pairs_at_a_time)  # small graphs in several blocks of nodes
    for data in GRAPHS[:8]:
        dense = AddShortestPathDistance(cutoff, directed)(data).distance.view(data.num_nodes, data.num_nodes)
        sparse = AddShortestPathPairs(cutoff, directed)(data)
        assert torch.equal(sparse.pair_index, dense.nonzero().t())
        assert torch.equal(sparse.pair_distance, dense[dense > 0])
        assert sparse.pair_distance.dtype == (torch.int16 if cutoff == 300 else torch.uint8)


def test_long_distances():
    assert AddShortestPathPairs(300)(chain(401)).pair_distance.max() == 300


def test_pairs_batch():
    graphs = [any_graph(nodes, 9, nodes) for nodes in (5, 3, 7)]
    batch = Batch.from_data_list([AddShortestPathPairs(3)(AddShortestPathDistance()(graph)) for graph in graphs])
    assert batch.distance.shape == (25 + 9 + 49,)
    last = AddShortestPathPairs(3)(graphs[2])
    assert torch.equal(batch.pair_index[:, -last.pair_index.size(1) :], last.pair_index + 8)
