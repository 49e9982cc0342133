import networkx as nx
import psutil
import pytest
import torch
from torch_geometric.data import Batch, Data

from ghn_pyg.transforms import AddShortestPathDistance, AddShortestPathEdges, AddShortestPathPairs, distances


def any_graph(nodes, edges, seed):
    """Edges between any two nodes: cycles, loops and repeated edges among them."""
    ends = torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(seed))
    return Data(edge_index=ends, num_nodes=nodes)


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


GRAPHS = pytest.mark.parametrize(("nodes", "edges"), [(1, 0), (1, 2), (2, 1), (7, 11), (41, 50), (67, 61), (101, 700)])
DIRECTED = pytest.mark.parametrize("directed", [True, False])


@pytest.fixture
def large(monkeypatch):
    """As if all graphs were large: from two or three nodes after another."""
    monkeypatch.setattr(distances, "_WHOLE", 0)
    monkeypatch.setattr(distances, "_PAIRS_AT_A_TIME", 211)


@DIRECTED
@GRAPHS
@pytest.mark.parametrize("cutoff", [None, 1, 3, 254, 255])
@pytest.mark.parametrize("size", ["small", "large"])
def test_networkx_agrees(nodes, edges, directed, cutoff, size, request):
    if size == "large":
        request.getfixturevalue("large")
    data = any_graph(nodes, edges, seed=nodes + edges)
    expected = reference(data, directed)
    if cutoff is not None:
        expected[expected > cutoff] = 0
    distance = AddShortestPathDistance(cutoff, directed)(data).distance
    assert distance.dtype == (torch.uint8 if cutoff in (1, 3, 254) else torch.int16)
    assert torch.equal(distance.long(), expected.flatten())


@DIRECTED
@GRAPHS
@pytest.mark.parametrize("cutoff", [1, 2, 5, 300])
@pytest.mark.parametrize("small", [0, 128])
def test_near_pairs_are_the_dense_ones(nodes, edges, directed, cutoff, small, monkeypatch):
    monkeypatch.setattr(distances, "_SMALL", small)  # those of large graphs are searched otherwise
    data = any_graph(nodes, edges, seed=nodes + edges)
    dense = AddShortestPathDistance(cutoff, directed)(data).distance.view(nodes, nodes)
    sparse = AddShortestPathPairs(cutoff, directed)(data)
    assert torch.equal(sparse.pair_index, dense.nonzero().t())
    assert torch.equal(sparse.pair_distance, dense[dense > 0])
    assert sparse.pair_distance.dtype == (torch.int16 if cutoff == 300 else torch.uint8)


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


def test_long_distances_fit():
    chain = Data(edge_index=torch.stack((torch.arange(400), torch.arange(1, 401))), num_nodes=401)
    assert AddShortestPathDistance()(chain).distance.max() == 400
    assert AddShortestPathPairs(300)(chain).pair_distance.max() == 300


def test_graphs_batch():
    graphs = [any_graph(nodes, 9, nodes) for nodes in (5, 3, 7)]
    batch = Batch.from_data_list([AddShortestPathPairs(3)(AddShortestPathDistance()(graph)) for graph in graphs])
    assert batch.distance.shape == (25 + 9 + 49,)
    last = AddShortestPathPairs(3)(graphs[2])
    assert torch.equal(batch.pair_index[:, -last.pair_index.size(1) :], last.pair_index + 8)


MIXED = ((5, 9), (3, 0), (0, 0), (67, 61), (7, 11), (64, 63), (1, 2), (101, 120), (23, 40))


@DIRECTED
@pytest.mark.parametrize("sizes", [MIXED, MIXED[:3], MIXED[3:4], MIXED[2:3]])
@pytest.mark.parametrize("cutoff", [None, 3, 300])
def test_many_graphs_at_once_are_those_one_by_one(sizes, cutoff, directed):
    graphs = [any_graph(nodes, edges, nodes) if nodes else isolated(0) for nodes, edges in sizes]
    transform = AddShortestPathDistance(cutoff, directed)
    expected = [transform(graph).distance for graph in graphs]
    batch = transform(Batch.from_data_list(graphs))
    assert torch.equal(batch.distance, torch.cat(expected))
    assert batch.distance.dtype == expected[0].dtype
    for found in (transform.many(graphs), batch.to_data_list()):
        assert [data.num_nodes for data in found] == [nodes for nodes, _ in sizes]
        for data, one in zip(found, expected, strict=True):
            assert data.distance.dtype == one.dtype
            assert torch.equal(data.distance, one)


def isolated(nodes):
    return Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=nodes)


def test_many_without_any():
    assert AddShortestPathDistance().many([]) == []


def test_many_graphs_one_after_another():
    graphs = [any_graph(5, 7, 0), any_graph(3, 2, 1)]
    found = AddShortestPathDistance().many(iter(graphs))
    assert [len(one.distance) for one in found] == [25, 9]
    with pytest.raises(TypeError, match="many expected graphs one by one, got a Batch; call the transform itself"):
        AddShortestPathDistance().many(Batch.from_data_list(graphs))


def test_many_graphs_are_not_changed():
    graphs = [any_graph(7, 11, 3), any_graph(5, 3, 1)]
    batch = Batch.from_data_list(graphs)
    found = AddShortestPathDistance().many(graphs)
    AddShortestPathDistance()(batch)
    assert all("distance" not in data for data in (*graphs, batch, *batch.to_data_list()))
    assert [data.distance.untyped_storage().nbytes() for data in found] == [98, 50]
    assert batch.to_data_list()[1].edge_index.tolist() == graphs[1].edge_index.tolist()


def test_distances_of_batches_batch_again():
    batch = AddShortestPathDistance()(Batch.from_data_list([any_graph(7, 11, 3), any_graph(5, 3, 1)]))
    again = Batch.from_data_list(batch.to_data_list())
    assert torch.equal(again.distance, batch.distance)
    assert torch.equal(batch[1].distance, AddShortestPathDistance()(any_graph(5, 3, 1)).distance)


@pytest.mark.parametrize("edge", [(0, 3), (-1, 0)])
def test_edges_to_nowhere_among_many(edge):
    wrong = Data(edge_index=torch.tensor([[0, edge[0]], [1, edge[1]]]), num_nodes=3)
    graphs = [any_graph(7, 11, 3), wrong, any_graph(5, 3, 1)]
    with pytest.raises(ValueError, match=f"edges name nodes {min(edge)} to {max(1, *edge)} of a graph of 3 nodes"):
        AddShortestPathDistance().many(graphs)
    with pytest.raises(ValueError, match="edges connect different graphs of the batch"):
        AddShortestPathDistance()(Batch.from_data_list(graphs))
    with pytest.raises(ValueError, match="edges name nodes 0 to 3 of a graph of 3 nodes"):
        AddShortestPathDistance()(Batch.from_data_list([Data(edge_index=torch.tensor([[0], [3]]), num_nodes=3)]))


def test_the_graph_itself_is_not_changed():
    data = any_graph(7, 11, 3)
    before = data.edge_index.clone()
    AddShortestPathPairs(2)(AddShortestPathDistance()(data))
    assert sorted(data.keys()) == ["edge_index", "num_nodes"]
    assert torch.equal(data.edge_index, before)


@pytest.mark.parametrize("cutoff", [0, -1, 2.5, 32_768])
@pytest.mark.parametrize("transform", [AddShortestPathDistance, AddShortestPathPairs])
def test_cutoffs_out_of_range(transform, cutoff):
    with pytest.raises(ValueError, match=f"cutoff must be between 1 and 32,767, a whole number, got {cutoff}"):
        transform(cutoff)


def test_options_show():
    """PyG tells by it that a data set was processed with other ones."""
    assert repr(AddShortestPathDistance(3, directed=True)) == "AddShortestPathDistance(cutoff=3, directed=True)"
    assert repr(AddShortestPathPairs(5)) == "AddShortestPathPairs(cutoff=5, directed=False)"
    assert repr(AddShortestPathEdges()) == "AddShortestPathEdges(max_hops=5, directed=False)"


@pytest.mark.parametrize("transform", [AddShortestPathDistance(), AddShortestPathPairs(2)])
@pytest.mark.parametrize("edge", [(0, 3), (-1, 0)])
def test_edges_to_nowhere(transform, edge):
    data = Data(edge_index=torch.tensor([[edge[0]], [edge[1]]]), num_nodes=3)
    with pytest.raises(ValueError, match=f"edges name nodes {min(edge)} to {max(edge)} of a graph of 3 nodes; set num"):
        transform(data)


def test_graphs_that_are_too_large(monkeypatch):
    class Memory:
        available = 12_000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    AddShortestPathDistance()(any_graph(31, 5, 0))
    dense, denser = any_graph(101, 3000, 0), any_graph(131, 3000, 0)
    with pytest.raises(MemoryError, match=r"distances of all pairs of 101 nodes need 0.0 GB .* AddShortestPathPairs"):
        AddShortestPathDistance()(dense)
    monkeypatch.setattr(Memory, "available", 1_300_000_000)
    needed = "2.0 GB while they are computed, and 1.3 GB are free"  # 2 bytes for each of 31,623² pairs
    with pytest.raises(MemoryError, match=f"the distances of all pairs of 31,623 nodes need {needed}"):
        AddShortestPathDistance()(any_graph(31_623, 5, 0))
    monkeypatch.setattr(Memory, "available", 12_000)
    with pytest.raises(MemoryError, match=r"distances of all pairs of 101 nodes need"):
        AddShortestPathPairs(3)(dense)
    with pytest.raises(MemoryError, match=r"the pairs of 131 nodes within distance 1 need"):
        AddShortestPathPairs(3)(denser)
    with pytest.raises(MemoryError, match=r"distances of all pairs in 3 graphs need 0.0 GB"):
        AddShortestPathDistance().many([any_graph(61, 31, 0)] * 3)
    AddShortestPathPairs(1)(any_graph(131, 31, 0))
    with pytest.raises(MemoryError, match=r"distances of all pairs of 80 nodes"):
        AddShortestPathEdges(2)(any_graph(80, 5, 0))


@pytest.mark.parametrize(("size", "which"), [("small", "up to 7"), ("large", "over 6")])
def test_distances_that_do_not_fit(monkeypatch, size, which, request):
    if size == "large":
        request.getfixturevalue("large")
    monkeypatch.setattr(distances, "_LONGEST", 6)
    chain = Data(edge_index=torch.stack((torch.arange(7), torch.arange(1, 8))), num_nodes=8)
    with pytest.raises(ValueError, match=f"distances {which} do not fit into int16; give a cutoff"):
        AddShortestPathDistance()(chain)
    assert AddShortestPathDistance(5)(chain).distance.max() == 5
    chain = Data(edge_index=chain.edge_index[:, :6], num_nodes=8)
    assert AddShortestPathDistance()(chain).distance.max() == 6


def test_large_graphs_that_are_too_large(large, monkeypatch):
    class Memory:
        available = 70_000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    data = any_graph(257, 31, 0)
    assert AddShortestPathDistance(3)(data).distance.dtype == torch.uint8  # one byte for each pair
    with pytest.raises(MemoryError, match=r"distances of all pairs of 257 nodes need 0.0 GB .* AddShortestPathPairs"):
        AddShortestPathDistance()(data)


def test_edges_to_nowhere_in_large_graphs(large):
    data = Data(edge_index=torch.tensor([[0], [3]]), num_nodes=3)
    with pytest.raises(ValueError, match="edges name nodes 0 to 3 of a graph of 3 nodes; set num_nodes"):
        AddShortestPathDistance()(data)
