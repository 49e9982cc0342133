import networkx as nx
import numpy as np
import psutil
import pytest
import torch

from ghn_pyg.transforms import acyclic, shortest_paths


def random_graph(nodes, density, seed):
    """The edges of a directed acyclic graph in topological order."""
    draw = np.random.default_rng(seed)
    sources, targets = np.triu(draw.random((nodes, nodes)) < density, 1).nonzero()
    order = draw.permutation(len(sources))
    return torch.from_numpy(np.stack([sources[order], targets[order]]))


def reference(edge_index, nodes, cutoff):
    """Breadth-first search from every node."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(edge_index.t().tolist())
    expected = torch.zeros(nodes, nodes, dtype=torch.long)
    for source, lengths in nx.all_pairs_shortest_path_length(graph, cutoff=cutoff):
        for target, length in lengths.items():
            expected[source, target] = length
    return expected


@pytest.mark.parametrize("cutoff", [1, 2, 5, 50, 254, 255, 1000])
@pytest.mark.parametrize(
    ("nodes", "density"), [(2, 1.0), (3, 0.0), (17, 0.1), (41, 0.05), (67, 0.02), (101, 0.3), (331, 0.006)]
)
def test_networkx_agrees(nodes, density, cutoff):
    edge_index = random_graph(nodes, density, seed=nodes + cutoff)
    distance = shortest_paths(edge_index, nodes, cutoff)
    assert torch.equal(distance.long(), reference(edge_index, nodes, cutoff))


def test_literal_distances():
    edge_index = torch.tensor([[0, 1, 2, 0, 3, 1], [1, 2, 3, 2, 4, 4]])
    assert shortest_paths(edge_index, 6).tolist() == [
        [0, 1, 1, 2, 2, 0],
        [0, 0, 1, 2, 1, 0],
        [0, 0, 0, 1, 2, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def chain(nodes):
    return torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])


def test_distances_over_the_cutoff_become_0():
    assert shortest_paths(chain(7), 7, cutoff=3)[0].tolist() == [0, 1, 2, 3, 0, 0, 0]
    assert shortest_paths(chain(101), 101)[0].max() == 50


@pytest.mark.parametrize(("cutoff", "dtype"), [(1, torch.uint8), (50, torch.uint8), (254, torch.uint8),
                                               (255, torch.int16), (32766, torch.int16)])  # fmt: skip
def test_the_smallest_type_that_holds_all_distances(cutoff, dtype):
    distance = shortest_paths(chain(307), 307, cutoff)
    assert distance.dtype == dtype
    assert distance[0].tolist() == [step if step <= cutoff else 0 for step in range(307)]


@pytest.mark.parametrize("nodes", [0, 1, 5])
def test_without_edges(nodes):
    distance = shortest_paths(torch.empty(2, 0, dtype=torch.long), nodes)
    assert distance.tolist() == torch.zeros(nodes, nodes).tolist()


def test_nodes_behind_the_last_edge_have_no_distance():
    assert shortest_paths(torch.tensor([[0], [1]]), 3).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_repeated_edges_count_once():
    edge_index = torch.tensor([[0, 0, 1], [1, 1, 2]])
    assert shortest_paths(edge_index, 3)[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("edge", [(1, 0), (2, 2)])
def test_edges_must_point_forward(edge):
    edge_index = torch.tensor([[0, edge[0]], [1, edge[1]]])
    with pytest.raises(ValueError, match="edges must point from a node to a later one; sort the nodes topologically"):
        shortest_paths(edge_index, 3)


@pytest.mark.parametrize("cutoff", [0, -1, 32767, 100_000])
def test_cutoffs_out_of_range(cutoff):
    with pytest.raises(ValueError, match=f"cutoff must be between 1 and 32766, got {cutoff}"):
        shortest_paths(chain(3), 3, cutoff)


@pytest.mark.parametrize("edge", [(1, 5), (-1, 2)])
def test_edges_to_nowhere(edge):
    edges = torch.tensor([[0, edge[0]], [1, edge[1]]])
    with pytest.raises(ValueError, match=f"edges name nodes {min(0, edge[0])} to {edge[1]} of a graph of 3 nodes"):
        shortest_paths(edges, 3)


def test_the_input_is_not_changed():
    edge_index = random_graph(17, 0.3, seed=3)
    before = edge_index.clone()
    first, second = shortest_paths(edge_index, 17), shortest_paths(edge_index, 17)
    assert torch.equal(edge_index, before)
    assert torch.equal(first, second)
    assert first.is_contiguous()


def test_the_order_of_edges_does_not_matter():
    edge_index = random_graph(43, 0.1, seed=3)
    assert torch.equal(shortest_paths(edge_index.flip(1), 43), shortest_paths(edge_index, 43))


@pytest.mark.parametrize(("longest", "rows"), [(1, 1), (3, 7), (256, 1000)])
def test_pieces_do_not_show(monkeypatch, longest, rows):
    """Long chains are cut, and the result is turned some rows after another."""
    monkeypatch.setattr(acyclic, "_LONGEST_CHAIN", longest)
    monkeypatch.setattr(acyclic, "_ROWS", rows)
    edge_index = torch.cat((chain(61)[:, 3:], torch.tensor([[0, 1, 5, 20], [2, 30, 50, 59]])), dim=1)
    for cutoff in (1, 2, 13, 254, 300):
        assert torch.equal(shortest_paths(edge_index, 61, cutoff).long(), reference(edge_index, 61, cutoff))


def test_graphs_that_are_too_large(monkeypatch):
    class Memory:
        available = 2 * 307 * 307

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    assert shortest_paths(chain(307), 307).dtype == torch.uint8
    with pytest.raises(MemoryError, match=r"the distances of all pairs of 311 nodes need 0.0 GB while they are compu"):
        shortest_paths(chain(311), 311)
