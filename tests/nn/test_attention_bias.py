import math

import psutil
import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from ghn_pyg.nn.attention import add_biases
from ghn_pyg.nn.attention_bias import DistanceBias, SpatialEncoding, signed_distance, sinusoids
from ghn_pyg.nn.blocks import Blocks
from ghn_pyg.nn.edge_paths import EdgePathEncoding
from ghn_pyg.transforms import AddShortestPathDistance, AddShortestPathEdges
from tests.properties import (
    assert_close,
    assert_pure,
    assert_same_gradients,
    join,
    matrix,
    unequal_graphs,
)
from tests.textbook import reference_bias

D, HEADS = 12, 3


def pairs(bias, graphs):
    """Biases (heads, N, N) of each graph, one after another."""
    blocks = Blocks.of_sizes([len(graph.x) for graph in graphs])
    found = {}
    for block, values in zip(blocks, add_biases(bias), strict=True):
        for graph, value in zip(block.graphs, values, strict=True):
            nodes = len(graphs[graph].x)
            assert (value[:, :, nodes:] == -torch.inf).all()
            found[graph] = value[:, :nodes, :nodes].flatten()
    return torch.cat([found[graph] for graph in range(len(graphs))])


def alone(bias, distance):
    """The biases of one graph, of shape (heads, N, N)."""
    ((result,),) = bias(distance.flatten(), Blocks.of(None, len(distance))).dense()
    return result


# --- GHN-3's biases of distances -------------------------------------------------------------------------------------


def distance_bias(dtype=torch.float64):
    torch.manual_seed(3)
    return DistanceBias(D, HEADS).to(dtype)


def test_biases_of_pairs():
    bias, graphs = distance_bias(), unequal_graphs(D)
    _, _, distance, batch = join(graphs)
    result = pairs(bias(distance, Blocks.of(batch, len(batch))), graphs)
    expected = torch.cat([reference_bias(bias, matrix(graph)).flatten() for graph in graphs])
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, list(bias.parameters()))


def test_rows_of_distances():
    """Each distance has the row two after it, and which of the pair comes first matters."""
    bias = distance_bias()
    distance = torch.tensor([[0, 1, 254], [0, 0, 7], [0, 0, 0]])
    result = alone(bias, distance)
    rows = [(2, 2), (3, 2), (256, 2), (2, 3), (2, 2), (9, 2), (2, 256), (2, 9), (2, 2)]
    features = torch.stack([bias.distance.weight[list(pair)].flatten() for pair in rows])
    assert_close(result.flatten(1).T, bias.mlp(features))
    assert not torch.allclose(result, result.transpose(1, 2))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_distances_of_255_and_more_count_as_254(dtype):
    bias = distance_bias()
    far = torch.tensor([[0, 253, 254, 255, 256, 1000, 32766], *[[0] * 7] * 6], dtype=dtype)
    result = alone(bias, far)
    assert_close(result, reference_bias(bias, far))
    assert_close(result[:, 0, 3:], result[:, 0, 2:3].expand(-1, 4))
    assert_close(result[:, 3:, 0], result[:, 2:3, 0].expand(-1, 4))
    assert (result[:, 0, 1] != result[:, 0, 2]).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_distances_are_not_changed(dtype):
    distance = torch.tensor([[0, 255, 1], [0, 0, 254], [0, 0, 0]], dtype=dtype)
    assert_pure(signed_distance, distance)
    assert_pure(lambda pairs: distance_bias()(pairs, Blocks.of(None, 3)).dense(), distance.flatten())


def test_sinusoids():
    table = sinusoids(5, 6)
    frequency = [1.0, 0.046415888336127774, 0.0021544346900318843]
    position = torch.arange(5.0)[:, None] * torch.tensor(frequency)
    expected = torch.empty(5, 6)
    expected[:, 0::2], expected[:, 1::2] = position.sin(), position.cos()
    expected[0] = 0
    torch.testing.assert_close(table, expected)
    assert table[0].tolist() == [0] * 6


def test_distances_start_as_sinusoids():
    table = DistanceBias(12, 3).distance
    nn.init.constant_(table.weight, 5)
    table.reset_parameters()
    for weight in (table.weight, DistanceBias(12, 3).distance.weight):
        assert torch.equal(weight, sinusoids(257, 12))
        torch.testing.assert_close(weight[3, :2], torch.tensor([math.sin(3), math.cos(3)]))
        assert weight.requires_grad


# --- Graphormer's biases of distances --------------------------------------------------------------------------------


def reference_spatial(encoding, distance):
    """A number for each pair: (N, N) → (H, N, N)."""
    nodes, far = len(distance), encoding.max_distance + 1

    def number(table, query, key):
        away = int(distance[query, key])
        return table.weight[far + 1 if query != key and not away else min(away, far)]

    result = torch.empty(nodes, nodes, HEADS, dtype=torch.float64)
    for query in range(nodes):
        for key in range(nodes):
            result[query, key] = number(encoding.bias, query, key)
            if encoding.back is not None:
                result[query, key] += number(encoding.back, key, query)
    return result.permute(2, 0, 1)


def undirected(graph):
    """The graph with the distances of its edges taken both ways."""
    distance = AddShortestPathDistance()(Data(edge_index=graph.edge_index, num_nodes=len(graph.x))).distance
    return graph._replace(distance=distance)


@pytest.mark.parametrize("max_distance", [1, 3, 20])
@pytest.mark.parametrize("directed", [True, False])
def test_numbers_of_distances(directed, max_distance):
    torch.manual_seed(3)
    encoding = SpatialEncoding(HEADS, max_distance, directed).double()
    graphs = unequal_graphs(D) if directed else [undirected(graph) for graph in unequal_graphs(D)]
    _, _, distance, batch = join(graphs)
    result = pairs(encoding(distance, Blocks.of(batch, len(batch))), graphs)
    expected = torch.cat([reference_spatial(encoding, matrix(graph)).flatten() for graph in graphs])
    assert_close(result, expected)
    assert_same_gradients(result, expected, list(encoding.parameters()))


def test_itself_no_path_and_far_away_are_three_numbers():
    encoding = SpatialEncoding(1, max_distance=2)
    with torch.no_grad():
        encoding.bias.weight.copy_(torch.tensor([[2.0], [3.0], [5.0], [7.0], [11.0]]))
    distance = torch.tensor([[0, 1, 2, 3, 0], [1, 0, 1, 2, 0], [2, 1, 0, 1, 0], [3, 2, 1, 0, 0], [0, 0, 0, 0, 0]])
    assert alone(encoding, distance)[0].tolist() == [
        [2, 3, 5, 7, 11], [3, 2, 3, 5, 11], [5, 3, 2, 3, 11], [7, 5, 3, 2, 11], [11, 11, 11, 11, 2]
    ]  # fmt: skip


def test_spatial_encodings_are_drawn_anew():
    encoding = SpatialEncoding(HEADS, directed=True)
    assert encoding.bias.weight.shape == encoding.back.weight.shape == (23, HEADS)
    nn.init.constant_(encoding.back.weight, 5)
    encoding.reset_parameters()
    assert 0.01 < encoding.back.weight.std() < 0.03
    with pytest.raises(ValueError, match="max_distance must be at least 1, got 0"):
        SpatialEncoding(HEADS, max_distance=0)


# --- biases of edges along paths -------------------------------------------------------------------------------------


def reference_paths(encoding, edge_attr, path):
    """The mean over the edges of each path: (N, N, L) → (H, N, N)."""
    nodes = len(path)
    weights = encoding.hops.weight.view(encoding.max_hops, HEADS, -1)
    result = torch.zeros(nodes, nodes, HEADS, dtype=torch.float64)
    for query in range(nodes):
        for key in range(nodes):
            edges = [int(edge) for edge in path[query, key, : encoding.max_hops] if edge >= 0]
            for hop, edge in enumerate(edges):
                result[query, key] += weights[hop] @ edge_attr[edge] / len(edges)
    return result.permute(2, 0, 1)


@pytest.mark.parametrize("max_hops", [1, 3, 7])
def test_edges_along_paths(max_hops):
    torch.manual_seed(3)
    encoding, graphs = EdgePathEncoding(5, HEADS, max_hops).double(), unequal_graphs(D)
    transform = AddShortestPathEdges(max_hops=4, directed=True)
    paths = [transform(Data(edge_index=graph.edge_index, num_nodes=len(graph.x))).path_edges for graph in graphs]
    attr = [torch.randn(graph.edge_index.size(1), 5, dtype=torch.float64, requires_grad=True) for graph in graphs]
    _, edge_index, _, batch = join(graphs)
    result = pairs(encoding(edge_index, torch.cat(attr), torch.cat(paths), Blocks.of(batch, len(batch))), graphs)
    expected = torch.cat([
        reference_paths(encoding, one, path.view(len(graph.x), len(graph.x), -1)).flatten()
        for graph, one, path in zip(graphs, attr, paths, strict=True)
    ])  # fmt: skip
    assert_close(result, expected)
    assert_same_gradients(result, expected, [encoding.hops.weight, *attr])


def test_pairs_without_a_path_have_no_bias():
    encoding = EdgePathEncoding(2, HEADS)
    path = AddShortestPathEdges()(Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=3)).path_edges
    (result,) = encoding(torch.tensor([[0, 1], [1, 0]]), torch.ones(2, 2), path, Blocks.of(None, 3))
    assert result[0].ne(0).any(0).tolist() == [[False, True, False], [True, False, False], [False] * 3]


def test_an_edge_at_least():
    with pytest.raises(ValueError, match="max_hops must be at least 1, got 0"):
        EdgePathEncoding(2, HEADS, max_hops=0)


@pytest.mark.parametrize("bias", [DistanceBias(D, HEADS), SpatialEncoding(HEADS)])
def test_the_batch_may_be_a_vector(bias):
    _, _, distance, batch = join(unequal_graphs(D))
    found, expected = bias(distance, batch), bias(distance, Blocks.of(batch, len(batch)))
    torch.testing.assert_close(found.dense(), expected.dense(), rtol=0, atol=0)
    with pytest.raises(TypeError, match=r"got NoneType; for a single graph pass Blocks.of\(None, num_nodes\)"):
        bias(distance, None)


def test_the_batch_of_paths_may_be_a_vector():
    encoding, edges = EdgePathEncoding(2, HEADS), torch.tensor([[0, 2], [1, 3]])
    path = torch.tensor([-1, 0, -1, -1] * 2)[:, None]
    batch, attr = torch.tensor([0, 0, 1, 1]), torch.tensor([[1.0, 2.0], [5.0, 7.0]])
    (found,), (expected,) = (encoding(edges, attr, path, one) for one in (batch, Blocks.of_sizes([2, 2])))
    assert torch.equal(found, expected)
    with pytest.raises(TypeError, match="batch expected the graph of each node, or Blocks, got NoneType"):
        encoding(edges, attr, path, None)


PATH = torch.full((9, 1), -1)
EDGES = torch.tensor([[0, 1], [1, 2]])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(1, 2), "edge_attr expected a row for each of 2 edges, got 1"),
        (torch.ones(2), r"edge_attr expected the shape \(2, 2\), got torch.float32 of \(2,\)"),
        (torch.ones(2, 2, 1), r"edge_attr expected the shape \(2, 2\), got torch.float32 of \(2, 2, 1\)"),
        (torch.ones(2, 3).long(), r"edge_attr expected the shape \(2, 2\), got torch.int64 of \(2, 3\)"),
        (torch.ones(()), "edge_attr expected"),
        (None, r"edge_attr expected features of the shape \(2, 2\), got NoneType"),
    ],
)
def test_edge_features_that_do_not_fit(features, message):
    with pytest.raises(ValueError, match=message):
        EdgePathEncoding(2, HEADS)(EDGES, features, PATH, Blocks.of(None, 3))


@pytest.mark.parametrize("path", [None, torch.full((9,), -1), torch.zeros(9, 1), torch.full((4, 1), -1)])
def test_paths_that_are_none(path):
    with pytest.raises(ValueError, match=r"path expected integers|expected a value for each of 9 pairs"):
        EdgePathEncoding(2, HEADS)(EDGES, torch.ones(2, 2), path, Blocks.of(None, 3))


@pytest.mark.parametrize(
    "features", [torch.tensor([2, 3]), torch.tensor([[2], [3]]), torch.tensor([2.0, 3.0]).double()]
)
def test_one_feature_of_any_type(features):
    encoding = EdgePathEncoding(1, HEADS)
    path = AddShortestPathEdges()(Data(edge_index=EDGES, num_nodes=3)).path_edges
    (found,), (expected,) = (
        encoding(EDGES, one, path, Blocks.of(None, 3)) for one in (features, torch.tensor([[2.0], [3.0]]))
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("bias", [DistanceBias(D, HEADS), SpatialEncoding(HEADS)])
def test_distances_are_whole_numbers(bias):
    with pytest.raises(TypeError, match="distance expected a tensor, as AddShortestPathDistance adds it, got None"):
        bias(None, Blocks.of(None, 3))
    with pytest.raises(ValueError, match=r"distance expected integers, 0 for no path, got torch\.float32"):
        bias(torch.zeros(9), Blocks.of(None, 3))


@pytest.mark.parametrize("bias", [DistanceBias(D, HEADS), SpatialEncoding(HEADS)])
@pytest.mark.parametrize("kind", [torch.int8, torch.int64])
def test_distances_below_0(bias, kind):
    with pytest.raises(ValueError, match="distance expected 0 for no path, got -1"):
        bias(torch.tensor([0, 1, -1, 0], dtype=kind), Blocks.of(None, 2))


@pytest.mark.parametrize(
    ("largest", "directed", "kind"),
    [(20, False, torch.int16), (177, True, torch.int16), (179, True, torch.int32), (32_763, False, torch.int16)],
)
def test_columns_are_as_small_as_they_can_be(largest, directed, kind):
    spatial = SpatialEncoding(HEADS, largest, directed)
    distance = torch.tensor([0, largest, 40_000, 0], dtype=torch.int32)
    (position,) = (bias := spatial(distance, Blocks.of(None, 2))).columns
    assert position.dtype == kind
    rows = spatial.bias.weight[[largest, largest + 1]] + (
        spatial.back.weight[[largest + 1, largest]] if directed else 0
    )
    assert torch.equal(bias.dense()[0][0, :, [0, 1], [1, 0]].t(), rows)


@pytest.mark.parametrize("bias", [DistanceBias(D, HEADS), SpatialEncoding(HEADS)])
def test_distances_that_do_not_fit_into_memory(bias, monkeypatch):
    class Memory:
        available = 60_000_000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    with pytest.raises(MemoryError, match="bias of all pairs of nodes needs"):
        bias(torch.zeros(1, dtype=torch.uint8).expand(4001**2), Blocks.of(None, 4001))


def test_heads_at_least():
    with pytest.raises(ValueError, match="heads must be at least 1, got 0"):
        SpatialEncoding(heads=0)


@pytest.mark.parametrize("bias", [DistanceBias(D, HEADS), SpatialEncoding(HEADS)])
def test_distances_of_another_batch(bias):
    with pytest.raises(ValueError, match="expected a value for each of 13 pairs of nodes, got 16"):
        bias(torch.zeros(16, dtype=torch.uint8), Blocks.of_sizes([2, 3]))
