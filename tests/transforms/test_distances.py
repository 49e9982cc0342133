import functools

import networkx as nx
import psutil
import pytest
import torch
from torch_geometric.data import Batch, Data

from ghn_pyg.transforms import (
    AddCentrality,
    AddShortestPathDistance,
    AddShortestPathEdges,
    AddShortestPathPairs,
    frontier_bfs,
    shortest_paths,
)

TRANSFORMS = (AddCentrality(), AddShortestPathDistance(), AddShortestPathEdges(), AddShortestPathPairs(2))


def any_graph(nodes, edges, seed):
    """Edges between any two nodes, with cycles, loops and repeated edges."""
    ends = torch.randint(max(nodes, 1), (2, edges), generator=torch.Generator().manual_seed(seed))
    return Data(edge_index=ends, num_nodes=nodes)


def chain(nodes):
    return Data(edge_index=torch.stack((torch.arange(nodes - 1), torch.arange(1, nodes))), num_nodes=nodes)


def reference(data, directed):
    """Breadth-first search from every node, by networkx."""
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_nodes_from(range(data.num_nodes))
    graph.add_edges_from(data.edge_index.t().tolist())
    expected = torch.zeros(data.num_nodes, data.num_nodes, dtype=torch.long)
    for source, lengths in nx.all_pairs_shortest_path_length(graph):
        for target, length in lengths.items():
            expected[source, target] = length
    return expected


@functools.cache
def references(directed):
    return [reference(graph, directed) for graph in GRAPHS]


# Sizes around 64 and 1,024 nodes (words of bits), and depths around 255 (binary digits).
GRAPHS = [
    *(any_graph(*size, seed=size[0]) for size in [(5, 9), (3, 0), (0, 0), (1, 2), (67, 61), (64, 63), (101, 700)]),
    any_graph(23, 40, seed=3), any_graph(131, 130, seed=5), any_graph(1031, 1100, seed=7), chain(256), chain(257),
    chain(300),
]  # fmt: skip
DIRECTED = pytest.mark.parametrize("directed", [True, False])


@DIRECTED
@pytest.mark.parametrize("cutoff", [None, 1, 3, 254, 255, 256])
def test_networkx_agrees_for_single_graphs_batches_and_many_graphs(cutoff, directed):
    transform, batch = AddShortestPathDistance(cutoff, directed), Batch.from_data_list(GRAPHS)
    ways = (map(transform, GRAPHS), transform.many(iter(GRAPHS)), transform(batch).to_data_list())
    for graph, expected, *results in zip(GRAPHS, references(directed), *ways, strict=True):
        expected = expected.clone()
        if cutoff is not None:
            expected[expected > cutoff] = 0
        for result in results:
            assert result.num_nodes == graph.num_nodes
            assert result.distance.dtype == (torch.uint8 if cutoff in (1, 3, 254) else torch.int16)
            assert torch.equal(result.distance.long(), expected.flatten())


def test_literal_distances():
    data = Data(edge_index=torch.tensor([[0, 1, 2, 3, 0], [1, 2, 0, 4, 4]]), num_nodes=6)
    assert AddShortestPathDistance(directed=True)(data).distance.view(6, 6).tolist() == [
        [0, 1, 2, 0, 1, 0],
        [2, 0, 1, 0, 3, 0],
        [1, 2, 0, 0, 2, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert AddShortestPathDistance()(data).distance.view(6, 6)[2].tolist() == [1, 1, 0, 3, 2, 0]


def test_graphs_are_not_changed():
    graphs = [any_graph(7, 11, 3), any_graph(5, 3, 1)]
    batch = Batch.from_data_list(graphs)
    before = [data.edge_index.clone() for data in (*graphs, batch)]
    many = AddShortestPathDistance().many(graphs)
    AddShortestPathPairs(2)(AddShortestPathDistance()(graphs[0]))
    AddShortestPathDistance()(batch)
    for data, edges in zip((*graphs, batch), before, strict=True):
        assert "distance" not in data
        assert torch.equal(data.edge_index, edges)
    assert [data.distance.untyped_storage().nbytes() for data in many] == [98, 50]  # no view of a larger tensor


def test_distances_of_batches_batch_again():
    batch = AddShortestPathDistance()(Batch.from_data_list([any_graph(7, 11, 3), any_graph(5, 3, 1)]))
    again = Batch.from_data_list(batch.to_data_list())
    assert torch.equal(again.distance, batch.distance)
    assert torch.equal(batch[1].distance, AddShortestPathDistance()(any_graph(5, 3, 1)).distance)


def test_many_takes_single_graphs():
    assert AddShortestPathDistance().many([]) == []
    with pytest.raises(TypeError, match="expected single graphs, got a Batch"):
        AddShortestPathDistance().many(Batch.from_data_list(GRAPHS[:2]))


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("edge", "nodes"), [((0, 3), 3), ((-1, 0), 3), ((0, 211), 200)])
def test_edges_to_nodes_that_do_not_exist(transform, edge, nodes):
    data = Data(edge_index=torch.tensor([[edge[0]], [edge[1]]]), num_nodes=nodes)
    with pytest.raises(
        ValueError, match=f"nodes {min(edge)} to {max(edge)} of a graph of {nodes} nodes; set num_nodes"
    ):
        transform(data)


@pytest.mark.parametrize("edge", [(0, 3), (-1, 0)])
def test_edges_to_nodes_that_do_not_exist_among_many_graphs(edge):
    wrong = Data(edge_index=torch.tensor([[0, edge[0]], [1, edge[1]]]), num_nodes=3)
    graphs = [any_graph(7, 11, 3), wrong, any_graph(5, 3, 1)]
    with pytest.raises(ValueError, match=f"edges name nodes {min(edge)} to {max(1, *edge)} of a graph of 3 nodes"):
        AddShortestPathDistance().many(graphs)
    with pytest.raises(ValueError, match="edges connect different graphs of the batch"):
        AddShortestPathDistance()(Batch.from_data_list(graphs))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_data_without_edge_index(transform):
    with pytest.raises(ValueError, match=r"edge_index expected the shape \(2, E\), got none"):
        transform(Data(x=torch.zeros(3, 2)))
    with pytest.raises(ValueError, match=r"edge_index expected the shape \(2, E\), got \(3, 2\)"):
        transform(Data(edge_index=torch.zeros(3, 2, dtype=torch.long), num_nodes=3))


@pytest.mark.parametrize("cutoff", [0, -1, 2.5, 32_768])
@pytest.mark.parametrize(
    "call",
    [AddShortestPathDistance, AddShortestPathPairs, lambda cutoff: shortest_paths(chain(3).edge_index, 3, cutoff)],
)
def test_cutoffs_out_of_range(call, cutoff):
    with pytest.raises(ValueError, match=f"whole number between 1 and 32,767, got {cutoff}"):
        call(cutoff)


def test_the_repr_shows_the_options():
    assert repr(AddShortestPathDistance(3, directed=True)) == "AddShortestPathDistance(cutoff=3, directed=True)"
    assert repr(AddShortestPathPairs(5)) == "AddShortestPathPairs(cutoff=5, directed=False)"
    assert repr(AddShortestPathEdges()) == "AddShortestPathEdges(max_hops=5, directed=False)"
    assert repr(AddCentrality()) == "AddCentrality()"


def test_distances_that_do_not_fit(monkeypatch):
    monkeypatch.setattr(frontier_bfs, "MAX_DISTANCE", 299)  # a chain of 32,769 nodes takes too long
    with pytest.raises(ValueError, match="distances over 299 do not fit into int16; give a cutoff"):
        AddShortestPathDistance()(chain(301))
    assert AddShortestPathDistance()(chain(300)).distance.max() == 299
    assert AddShortestPathDistance(290)(chain(301)).distance.max() == 290


def test_graphs_that_do_not_fit_into_memory(monkeypatch):
    class Memory:
        available = 300_000_000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    large = any_graph(31_627, 5, 0)
    with pytest.raises(MemoryError, match=r"31,627 nodes needs 2\.0 GB, 0\.3 GB are free; .*AddShortestPathPairs"):
        AddShortestPathDistance()(large)
    with pytest.raises(MemoryError, match=r"31,627 nodes needs 1\.0 GB, 0\.3 GB are free"):
        shortest_paths(chain(31_627).edge_index, 31_627)
    with pytest.raises(MemoryError, match=r"distances of 3 graphs needs 6\.0 GB, 0\.3 GB are free"):
        AddShortestPathDistance().many([large] * 3)
    with pytest.raises(MemoryError, match="path edges of 3,301 nodes needs"):
        AddShortestPathEdges(2)(any_graph(3301, 5, 0))
    monkeypatch.setattr(Memory, "available", 70_000_000)
    with pytest.raises(MemoryError, match="pairs of 1,511 nodes within distance 2 needs"):
        AddShortestPathPairs(2)(any_graph(1511, 50_000, 0))
    assert AddShortestPathPairs(1)(large).pair_index.shape == (2, 10)


# --- acyclic graphs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nodes", "density"), [(2, 1.0), (3, 0.0), (17, 0.1), (101, 0.3), (331, 0.006)])
@pytest.mark.parametrize("cutoff", [1, 50, 255])
def test_shortest_paths_of_acyclic_graphs(nodes, density, cutoff):
    draw = torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(nodes))
    data = Data(edge_index=(draw.triu(1) > 1 - density).nonzero().t(), num_nodes=nodes)
    expected = reference(data, directed=True)
    expected[expected > cutoff] = 0
    distance = shortest_paths(data.edge_index, nodes, cutoff)
    assert distance.dtype == (torch.int16 if cutoff == 255 else torch.uint8)
    assert torch.equal(distance.long(), expected)


def test_the_default_cutoff_is_50():
    assert shortest_paths(chain(101).edge_index, 101)[0].tolist() == [*range(51), *[0] * 50]


@pytest.mark.parametrize("edge", [(1, 0), (2, 2)])
def test_edges_must_point_forward(edge):
    with pytest.raises(ValueError, match="edges must point from a node to a later one; sort the nodes topologically"):
        shortest_paths(torch.tensor([[0, edge[0]], [1, edge[1]]]), 3)
