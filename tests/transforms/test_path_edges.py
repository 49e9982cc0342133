import pytest
import torch
from torch_geometric.data import Batch, Data

from ghn_pyg.transforms import AddShortestPathDistance, AddShortestPathEdges, path_edges
from tests.transforms.test_distances import DIRECTED, any_graph


@DIRECTED
@pytest.mark.parametrize(("nodes", "edges"), [(1, 0), (1, 2), (2, 1), (7, 11), (41, 50), (67, 61)])
def test_every_path_leads_there_and_is_shortest(nodes, edges, directed):
    data = any_graph(nodes, edges, seed=nodes + edges)
    distance = AddShortestPathDistance(directed=directed)(data).distance.view(nodes, nodes)
    found = AddShortestPathEdges(100, directed)(data).path_edges
    assert found.shape == (nodes * nodes, 100)
    assert found.dtype == torch.int32
    for start in range(nodes):
        for end in range(nodes):
            path = [edge for edge in found[start * nodes + end].tolist() if edge >= 0]
            assert len(path) == distance[start, end]
            at = start
            for edge in path:
                source, target = data.edge_index[:, edge].tolist()
                assert at == source or (not directed and at == target)
                at = target if at == source else source
            assert not path or at == end


def test_the_first_of_several_edges_counts():
    data = Data(edge_index=torch.tensor([[0, 0, 0, 1, 2], [1, 1, 2, 3, 3]]), num_nodes=4)
    found = AddShortestPathEdges(2, directed=True)(data).path_edges.view(4, 4, 2)
    assert found[0].tolist() == [[-1, -1], [0, -1], [2, -1], [0, 3]]
    assert (found[3] == -1).all()
    assert AddShortestPathEdges(2)(data).path_edges.view(4, 4, 2)[3].tolist() == [[3, 0], [3, -1], [4, -1], [-1, -1]]


def test_pieces_do_not_show(monkeypatch):
    data = any_graph(13, 40, seed=3)
    whole = AddShortestPathEdges(5)(data.clone()).path_edges
    monkeypatch.setattr(path_edges, "_PAIRS_AT_A_TIME", 7 * 13)
    assert torch.equal(AddShortestPathEdges(5)(data).path_edges, whole)


def test_paths_in_a_batch_are_those_of_each_graph():
    graphs = [any_graph(nodes, edges, seed=nodes) for nodes, edges in [(5, 7), (1, 0), (11, 20)]]
    transform = AddShortestPathEdges(3)
    expected = [transform(graph.clone()).path_edges for graph in graphs]
    batch = transform(Batch.from_data_list(graphs))
    assert torch.equal(batch.path_edges, torch.cat(expected))
    assert all(torch.equal(one.path_edges, own) for one, own in zip(batch.to_data_list(), expected, strict=True))


def test_long_paths_are_cut():
    chain = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), num_nodes=4)
    assert AddShortestPathEdges(2)(chain).path_edges.view(4, 4, 2)[0].tolist() == [[-1, -1], [0, -1], [0, 1], [0, 1]]


def test_a_path_has_an_edge():
    with pytest.raises(ValueError, match="max_hops must be at least 1, got 0"):
        AddShortestPathEdges(0)


@pytest.mark.parametrize("seed", range(3))
def test_edges_in_walking_direction_come_first(seed):
    """Each step of a path takes an edge from its node, wherever there is one."""
    data = any_graph(11, 17, seed)
    data.edge_index = torch.cat((data.edge_index, data.edge_index.flip(0)[:, ::2]), dim=1)
    forward = set(map(tuple, data.edge_index.t().tolist()))
    for start, paths in enumerate(AddShortestPathEdges(7)(data).path_edges.view(11, 11, 7).tolist()):
        for path in paths:
            at = start
            for edge in path[: path.index(-1)]:
                source, target = data.edge_index[:, edge].tolist()
                assert at == source or (source, target) not in forward or (target, source) not in forward
                at = target if at == source else source


def test_each_direction_has_its_own_edge():
    data = AddShortestPathEdges(2)(Data(edge_index=torch.tensor([[0, 1, 2, 1], [1, 0, 1, 2]]), num_nodes=3))
    assert data.path_edges.view(3, 3, 2).tolist() == [
        [[-1, -1], [0, -1], [0, 3]], [[1, -1], [-1, -1], [3, -1]], [[2, 1], [2, -1], [-1, -1]]
    ]  # fmt: skip
