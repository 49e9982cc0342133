import pytest
import torch

from ghn_pyg.nn import Blocks, GRITLayer, RelativeWalkEncoding
from ghn_pyg.transforms import AddRelativeWalks
from tests.properties import assert_close
from tests.transforms.test_distances import any_graph

D, HEADS, STEPS = 12, 3, 5
SIZES = ((5, 7), (1, 0), (11, 20), (2, 1))


def batch():
    graphs = [AddRelativeWalks(STEPS)(any_graph(nodes, edges, seed=nodes)) for nodes, edges in SIZES]
    walks = torch.cat([graph.relative_walks for graph in graphs]).double()
    blocks = Blocks.of_sizes([nodes for nodes, _ in SIZES])
    degree = torch.cat([torch.bincount(graph.edge_index[1], minlength=graph.num_nodes) for graph in graphs])
    x = torch.randn(19, D, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return x, walks, degree, blocks


def pairs_of(blocks, parts):
    """The states (n, n, d) of each graph."""
    found = {}
    for block, part in zip(blocks, parts, strict=True):
        for graph, state in zip(block.graphs, part, strict=True):
            found[graph] = state[: blocks.sizes[graph], : blocks.sizes[graph]]
    return [found[graph] for graph in sorted(found)]


def reference(layer, x, pairs, degree):
    """One graph by the formulas, head by head and pair by pair."""
    width, nodes = D // HEADS, len(x)
    q, k, v = (part.view(nodes, HEADS, width) for part in layer.qkv(x).split(D, dim=1))
    factor, summand = layer.pair_in(pairs).split(D, dim=-1)
    hidden = torch.zeros(nodes, nodes, HEADS, width, dtype=torch.float64)
    attended = torch.zeros(nodes, HEADS, width, dtype=torch.float64)
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        for u in range(nodes):
            for other in range(nodes):
                product = (q[u, head] + k[other, head]) * factor[u, other, part]
                rooted = product.sign() * product.abs().sqrt()
                hidden[u, other, head] = (rooted + summand[u, other, part]).relu()
            weight = (hidden[u, :, head] @ layer.score[head]).softmax(0)
            attended[u, head] = weight @ (v[:, head] + hidden[u, :, head] @ layer.pair_value[head])
    attended = attended.flatten(1)
    attended = attended * layer.degree[0] + (1 + degree.double()).log()[:, None] * attended * layer.degree[1]
    y = layer.norm1(x + layer.out(attended))
    return layer.norm2(y + layer.feed_forward(y)), layer.pair_norm(pairs + layer.pair_out(hidden.flatten(-2)))


def test_the_formulas_of_the_paper():
    torch.manual_seed(3)
    layer, encoding = GRITLayer(D, HEADS, norm="layer").double(), RelativeWalkEncoding(STEPS, D).double()
    torch.nn.init.normal_(layer.degree)
    x, walks, degree, blocks = batch()
    nodes, pairs = encoding(walks, blocks)
    found, states = layer(x + nodes, pairs, degree, blocks)
    expected = [
        reference(layer, *given)
        for given in zip(
            (x + nodes).split(blocks.sizes), pairs_of(blocks, pairs), degree.split(blocks.sizes), strict=True
        )
    ]
    assert_close(found, torch.cat([one for one, _ in expected]), 1e-5)
    for state, (_, other) in zip(pairs_of(blocks, states), expected, strict=True):
        assert_close(state, other, 1e-5)


def test_all_parameters_are_trained():
    torch.manual_seed(3)
    layers = [GRITLayer(D, HEADS, dropout=0.2) for _ in range(2)]
    x, walks, degree, blocks = batch()
    nodes, pairs = RelativeWalkEncoding(STEPS, D)(walks.float(), blocks)
    x = x.float() + nodes
    for layer in layers:
        x, pairs = layer(x, pairs, degree, blocks)
    (x.square().sum() + sum(part.square().sum() for part in pairs)).backward()
    assert all(weight.grad.isfinite().all() and weight.grad.any() for layer in layers for weight in layer.parameters())


def test_the_default_is_post_norm_with_batch_norm():
    assert isinstance(GRITLayer(D, HEADS).norm1, torch.nn.BatchNorm1d)
    with pytest.raises(ValueError, match="channels must be a multiple of heads"):
        GRITLayer(D, 5)
