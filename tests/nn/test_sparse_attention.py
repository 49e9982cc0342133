import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Data

from ghn_pyg.nn import Blocks, ExpanderTransformer, GraphormerLayer, SparseGraphormerLayer, SparseTransformer
from ghn_pyg.nn.sparse_attention import sparse_pairs
from ghn_pyg.transforms import AddExpanderEdges
from tests.properties import assert_close, assert_pure, assert_same_gradients, chain, join, unequal_graphs
from tests.textbook import reference_layer

D, HEADS = 12, 3
SIZES = (5, 1, 2, 19)


def layer():
    torch.manual_seed(5)
    return SparseGraphormerLayer(D, HEADS).double()


def all_pairs():
    starts = [sum(SIZES[:graph]) for graph in range(len(SIZES))]
    blocks = [torch.cartesian_prod(torch.arange(size), torch.arange(size)).view(-1, 2) + start
              for size, start in zip(SIZES, starts, strict=True)]  # fmt: skip
    return torch.cat(blocks).t()


def test_all_pairs_are_the_dense_layer():
    one = layer()
    dense = GraphormerLayer(D, HEADS).double()
    dense.load_state_dict(one.state_dict())
    x = torch.randn(sum(SIZES), D, dtype=torch.float64, requires_grad=True)
    values = torch.randn(sum(size**2 for size in SIZES), HEADS, dtype=torch.float64, requires_grad=True)
    blocks = Blocks.of_sizes(SIZES)
    for bias, blocked in ((values, blocks.biases(values)), (None, None)):
        result, expected = one(x, all_pairs(), bias), dense(x, blocks, blocked)
        assert_close(result, expected)
        assert_same_gradients(one(x, all_pairs(), bias), result, [x])
        leaves = [x] if bias is None else [x, values]
        assert_same_gradients(one(x, all_pairs(), bias), dense(x, blocks, blocked), leaves)


def test_other_pairs_do_not_count():
    one, x = layer(), torch.randn(4, D, dtype=torch.float64)
    pairs = torch.tensor([[0, 0, 2, 3, 2], [1, 3, 2, 0, 0]])
    bias = torch.full((HEADS, 4, 4), -torch.inf, dtype=torch.float64)
    bias[:, pairs[0], pairs[1]] = 0
    result = one(x, pairs)
    expected = reference_layer(one, x, bias)
    assert_close(result[[0, 2, 3]], expected[[0, 2, 3]])
    alone = x[1:2] + one.out.bias  # attends to nothing
    assert_close(result[1:2], alone + one.ff(one.norm2(alone)))
    assert_pure(one, x, pairs)


def test_who_attends_to_whom():
    graph = chain(6, D)
    pairs, kinds = sparse_pairs(torch.cat((graph.distance, torch.zeros(1, dtype=torch.uint8))), [6, 1])
    found = {(query, key): kind for (query, key), kind in zip(pairs.t().tolist(), kinds.tolist(), strict=True)}
    assert len(found) == len(kinds)  # each pair once
    expected = {(node, node): 0 for node in range(9)}  # nodes 7 and 8 are the global ones
    for row, distance in enumerate((1, 2, 4)):
        for node in range(6 - distance):
            expected[node, node + distance] = row + 1
            expected[node + distance, node] = row + 7
    for node, graph in ((0, 7), (1, 7), (2, 7), (3, 7), (4, 7), (5, 7), (6, 8)):
        expected[node, graph], expected[graph, node] = 13, 14
    assert found == expected


def test_pairs_grow_slowly():
    counts = []
    for nodes in (101, 202, 404):
        pairs, _ = sparse_pairs(chain(nodes, 2, cutoff=50).distance, [nodes])
        counts.append(pairs.size(1))
    assert counts[1] < 2.2 * counts[0]
    assert counts[2] < 2.2 * counts[1]


def test_parameters_are_drawn():
    encoder = SparseTransformer(D, 2, HEADS)
    assert encoder.bias.weight.shape == (15, HEADS)
    assert 0.005 < encoder.token.std() < 0.05
    with pytest.raises(ValueError, match="channels must be a multiple of heads, got 12 and 5"):
        SparseTransformer(D, 1, 5)


def test_no_large_numbers_for_all_pairs():
    """The distances of a graph are as many bytes as pairs; nothing that is eight times as large is made of them."""
    graph, made = chain(211, 2, cutoff=50), []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            made.append(result.nbytes if isinstance(result, torch.Tensor) else 0)
            return result

    with Sizes():
        sparse_pairs(graph.distance, [211])
    assert max(made) < 3 * 211**2


# --- expanders -------------------------------------------------------------------------------------------------------


def expanders(sizes):
    parts = [AddExpanderEdges(2, seed=nodes)(Data(edge_index=torch.tensor([[0], [nodes - 1]]), num_nodes=nodes))
             for nodes in sizes]  # fmt: skip
    return torch.cat([part.expander_index + sum(sizes[:number]) for number, part in enumerate(parts)], dim=1)


def by_the_formula(model, x, edges, expander, batch, attr):
    """Each node's neighbors one by one, with virtual nodes behind all nodes."""
    graphs, nodes, virtual = int(batch[-1]) + 1, len(x), len(model.virtual)
    neighbors = [[(u, model.types.weight[0])] for u in range(nodes)] + [[] for _ in range(graphs * virtual)]
    features = model.edges(attr)
    for (u, v), feature in zip(edges.t().tolist(), features, strict=True):
        neighbors[v].append((u, model.types.weight[1] + feature))
        neighbors[u].append((v, model.types.weight[2] + feature))
    for u, v in expander.t().tolist():
        neighbors[u].append((v, model.types.weight[3]))
    for number in range(virtual):
        for u, graph in enumerate(batch.tolist()):
            token = nodes + number * graphs + graph
            neighbors[u].append((token, model.types.weight[4 + 2 * number]))
            neighbors[token].append((u, model.types.weight[5 + 2 * number]))
    x = torch.cat((x, model.virtual.repeat_interleave(graphs, 0)))
    for layer in model.layers:
        q, k, v = (part.view(len(x), layer.heads, -1) for part in layer.qkv(layer.norm1(x)).chunk(3, 1))
        rows = []
        for u, near in enumerate(neighbors):
            others, features = [other for other, _ in near], layer.pair(torch.stack([feature for _, feature in near]))
            score = (q[u] * k[others] * features.view(len(near), layer.heads, -1)).sum(-1) / q.size(-1) ** 0.5
            rows.append((score.softmax(0)[..., None] * v[others]).sum(0).flatten())
        x = x + layer.out(torch.stack(rows))
        x = x + layer.ff(layer.norm2(x))
    return x[:nodes]


@pytest.mark.parametrize("virtual", [0, 1, 2])
def test_exphormer_by_the_formula(virtual):
    torch.manual_seed(3)
    model = ExpanderTransformer(12, 2, 3, virtual, edge_channels=5).double()
    x, edges, _, batch = join(unequal_graphs(12))
    expander, attr = expanders(batch.bincount().tolist()), torch.randn(edges.size(1), 5, dtype=torch.float64)
    found = model(x, edges, expander, batch, attr)
    assert_close(found, by_the_formula(model, x, edges, expander, batch, attr), 1e-9)
    found.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_features_belong_to_channels():
    x, edges = torch.zeros(3, 8), torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match="edge_attr and edge_channels belong together"):
        ExpanderTransformer(8, 1, 2)(x, edges, edges, edge_attr=torch.zeros(1, 2))
    with pytest.raises(ValueError, match="pair_attr and pair_channels belong together"):
        SparseGraphormerLayer(8, 2, pair_channels=3)(x, edges)
    with pytest.raises(ValueError, match="virtual_nodes must be at least 0, got -1"):
        ExpanderTransformer(8, 1, 2, virtual_nodes=-1)
