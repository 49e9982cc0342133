import networkx as nx
import numpy as np
import pytest

from ghn_pyg.transforms import batched_bfs as together
from ghn_pyg.transforms.batched_bfs import distances_together


def reference(edges, sizes):
    """Breadth-first search from every node, by networkx."""
    graph = nx.DiGraph(edges.T.tolist())
    graph.add_nodes_from(range(sum(sizes)))
    found, first = [], 0
    for size in sizes:
        for source in range(first, first + size):
            lengths = nx.single_source_shortest_path_length(graph, source)
            found += [lengths.get(target, 0) for target in range(first, first + size)]
        first += size
    return found


def drawn(sizes, seed):
    """Edges inside each graph, loops and repeated ones among them, in no order."""
    random = np.random.default_rng(seed)
    edges, first = [np.empty((2, 0), np.int64)], 0
    for size in sizes:
        edges.append(first + random.integers(0, max(size, 1), (2, size * 3 // 2)))
        first += size
    return random.permutation(np.concatenate(edges, axis=1), axis=1)


@pytest.mark.parametrize("nodes", [1, 7, 70, 1 << 14])
@pytest.mark.parametrize("sizes", [(5,), (1, 2, 3), (64, 64), (7, 0, 0, 23, 1, 8, 9, 0, 63, 5, 5, 5), (0, 3, 0)])
def test_networkx_agrees(sizes, nodes, monkeypatch):
    """However many graphs are searched together."""
    monkeypatch.setattr(together, "_NODES", nodes)
    edges = drawn(sizes, len(sizes))
    before = edges.copy()
    found = distances_together(edges, np.array(sizes))
    assert found.dtype == np.uint8
    assert found.tolist() == reference(edges, sizes)
    assert np.array_equal(edges, before)


def test_the_longest_path():
    edges = np.stack((np.arange(63), np.arange(1, 64)))
    found = distances_together(edges, np.array([64])).reshape(64, 64)
    assert found[0].tolist() == list(range(64))
    assert not np.tril(found).any()


@pytest.mark.parametrize("cutoff", [1, 2, 7, 1000])
def test_cutoffs(cutoff):
    edges = np.stack((np.arange(10), np.arange(1, 11)))
    found = distances_together(edges, np.array([11]), cutoff)
    assert found[:11].tolist() == [distance if distance <= cutoff else 0 for distance in range(11)]


@pytest.mark.parametrize("sizes", [(), (0,), (0, 0), (1,), (3, 1)])
def test_without_edges(sizes):
    found = distances_together(np.empty((2, 0), np.int64), np.array(sizes, dtype=np.int64))
    assert found.tolist() == [0] * sum(size * size for size in sizes)
