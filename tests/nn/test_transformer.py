import copy
import math

import pytest
import torch
from torch import nn

from ghn_pyg.nn.transformer import (
    DistanceBias,
    GraphormerLayer,
    GraphTransformer,
    lookup_bias,
    signed_distance,
    sinusoids,
)
from tests.properties import (
    ENCODER_PROPERTIES,
    any_order,
    assert_close,
    assert_equivariant,
    assert_pure,
    assert_same_gradients,
    chain,
    graph_of,
    join,
    matrix,
    name_of,
    random_graph,
    unequal_graphs,
)

D, HEADS = 12, 3


def encoder(layers=2):
    torch.manual_seed(3)
    return GraphTransformer(D, layers, HEADS).double()


# --- the textbook ----------------------------------------------------------------------------------------------------


def reference_bias(bias, distance):
    """Every pair's 2d numbers through the MLP: (N, N) → (H, N, N)."""
    nodes, table = len(distance), bias.distance.weight
    features = torch.empty(nodes, nodes, 2 * table.size(1), dtype=table.dtype)
    for query in range(nodes):
        for key in range(nodes):
            there, back = int(distance[query, key]), int(distance[key, query])
            features[query, key] = torch.cat((table[min(there, 254) + 2], table[min(back, 254) + 2]))
    hidden = torch.clamp(features @ bias.mlp[0].weight.T + bias.mlp[0].bias, min=0)
    return (hidden @ bias.mlp[2].weight.T + bias.mlp[2].bias).permute(2, 0, 1)


def reference_norm(norm, x):
    centred = x - x.mean(1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5) * norm.weight + norm.bias


def reference_layer(layer, x, bias):
    """One layer over the nodes of one graph, head by head."""
    width, heads = x.size(1), layer.heads
    size = width // heads
    queries, keys, values = (reference_norm(layer.norm1, x) @ layer.qkv.weight.T).split(width, dim=1)
    attended = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = queries[:, part] @ keys[:, part].T / size**0.5 + bias[head]
        attention = torch.exp(scores) / torch.exp(scores).sum(1, keepdim=True)
        attended.append(attention @ values[:, part])
    x = x + torch.cat(attended, dim=1) @ layer.out.weight.T + layer.out.bias
    hidden = reference_norm(layer.norm2, x) @ layer.ff[0].weight.T + layer.ff[0].bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return x + hidden @ layer.ff[2].weight.T + layer.ff[2].bias


def reference(encoder, graph):
    """One graph through the encoder."""
    rows, distance = [], matrix(graph)
    for node, row in enumerate(graph.x):
        incoming, outgoing = (int((graph.edge_index[end] == node).sum()) for end in (1, 0))
        row = row + encoder.centrality.in_degree.weight[min(incoming, 100)]
        row = row + encoder.centrality.out_degree.weight[min(outgoing, 100)]
        rows.append(row + encoder.depth.weight[min(int(distance[0, node]), 1000)])
    x, bias = torch.stack(rows), reference_bias(encoder.spatial, distance)
    for layer in encoder.layers:
        x = reference_layer(layer, x, bias)
    return x


# --- the encoder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holds", ENCODER_PROPERTIES, ids=name_of)
def test_properties(holds):
    holds(encoder(), D)


@pytest.mark.parametrize("nodes", [1, 2, 7, 17])
def test_the_textbook_agrees(nodes):
    model, graph = encoder(), random_graph(nodes, D, seed=nodes)
    graph.x.requires_grad_()
    result, expected = model(*graph), reference(model, graph)
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, [graph.x, *model.parameters()])


def test_the_textbook_agrees_on_a_ragged_batch():
    model, graphs = encoder(layers=1), unequal_graphs(D)
    x, *rest = join(graphs)
    x.requires_grad_()
    parts = x.split([len(graph.x) for graph in graphs])
    expected = torch.cat([reference(model, graph._replace(x=part)) for graph, part in zip(graphs, parts, strict=True)])
    result = model(x, *rest)
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, [x, *model.parameters()])


@pytest.mark.parametrize("heads", [1, 2, 4, 12])
def test_any_number_of_heads(heads):
    torch.manual_seed(5)
    model, graph = GraphTransformer(D, 1, heads).double(), random_graph(11, D)
    assert_close(model(*graph), reference(model, graph), 1e-9)


def test_one_layer_alone():
    torch.manual_seed(5)
    layer = GraphormerLayer(D, HEADS).double()
    x = torch.randn(8, D, dtype=torch.float64, requires_grad=True)
    biases = [torch.randn(HEADS, nodes, nodes, dtype=torch.float64, requires_grad=True) for nodes in (5, 1, 2)]
    result = layer(x, biases)
    parts = zip(x.split([5, 1, 2]), biases, strict=True)
    expected = torch.cat([reference_layer(layer, part, bias) for part, bias in parts])
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, [x, *biases, *layer.parameters()])
    assert_pure(layer, x.detach(), [bias.detach() for bias in biases])


def test_any_order_behind_the_input():
    for seed in range(5):
        graph = random_graph(13, D, seed)
        assert_equivariant(encoder(), graph, any_order(graph, seed))


def test_the_first_node_is_the_input():
    graph = graph_of([(0, 1), (1, 2)], nodes=3, channels=D)
    order = torch.tensor([1, 0, 2])
    turned = encoder()(graph.x[order], torch.tensor([[1, 0], [0, 2]]), matrix(graph)[order][:, order].flatten())
    assert not torch.allclose(turned, encoder()(*graph)[order])


def test_no_gradient_crosses_graphs():
    x, *rest = join(unequal_graphs(D))
    x.requires_grad_()
    sizes = rest[-1]
    for position, part in enumerate(encoder()(x, *rest).split(sizes)):
        (gradient,) = torch.autograd.grad(part.square().sum(), x, retain_graph=True)
        reached = [bool(one.any()) for one in gradient.split(sizes)]
        assert reached == [other == position for other in range(len(sizes))]


def test_every_layer_sees_the_same_bias():
    model, graph = encoder(layers=3), random_graph(7, D)
    with torch.no_grad():
        model.spatial.mlp[2].bias.add_(3)  # the same for every pair of a head: softmax does not see it
        moved = model(*graph)
        model.spatial.mlp[2].bias.sub_(3)
    assert_close(moved, model(*graph))
    assert model.spatial.mlp[2].weight.shape == (3, 12)
    assert sum(name.startswith("spatial") for name, _ in model.named_parameters()) == 5


def test_numbers_of_parameters():
    counts = [sum(p.numel() for p in GraphTransformer(D, layers, HEADS).parameters()) for layers in (0, 1, 3)]
    layer = 2 * 24 + 3 * 144 + (144 + 12) + (576 + 48) + (576 + 12)
    assert counts == [17_859, 17_859 + layer, 17_859 + 3 * layer]
    assert layer == 1848


def test_a_long_chain():
    model, graph = encoder(), chain(307, D, cutoff=1000)
    assert graph.distance.max() == 306
    result = model(*graph)
    assert result.isfinite().all()
    assert_close(result, model(*graph._replace(distance=graph.distance.long())))


# --- biases of distances ---------------------------------------------------------------------------------------------


def distance_bias(dtype=torch.float64):
    torch.manual_seed(3)
    return DistanceBias(D, HEADS).to(dtype)


def test_biases_of_pairs():
    bias, graphs = distance_bias(), [matrix(graph) for graph in unequal_graphs(D)]
    result = torch.cat([block.flatten() for block in bias(graphs)])
    expected = torch.cat([reference_bias(bias, distance).flatten() for distance in graphs])
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, list(bias.parameters()))


def test_rows_of_distances():
    """Each distance has the row two after it, and which of the pair comes first matters."""
    bias = distance_bias()
    distance = torch.tensor([[0, 1, 254], [0, 0, 7], [0, 0, 0]])
    (result,) = bias([distance])
    rows = [(2, 2), (3, 2), (256, 2), (2, 3), (2, 2), (9, 2), (2, 256), (2, 9), (2, 2)]
    features = torch.stack([bias.distance.weight[list(pair)].flatten() for pair in rows])
    assert_close(result.flatten(1).T, bias.mlp(features))
    assert not torch.allclose(result, result.transpose(1, 2))


def test_rows_0_and_1_are_not_used():
    bias, distance = distance_bias(), matrix(random_graph(13, D))
    bias([distance])[0].square().sum().backward()
    used = bias.distance.weight.grad.any(1)
    assert used[:2].tolist() == [False, False]
    assert used[2].item()
    assert used.nonzero().flatten().tolist() == [2, *(distance.unique()[1:] + 2).tolist()]


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_distances_of_255_and_more_count_as_254(dtype):
    bias = distance_bias()
    far = torch.tensor([[0, 253, 254, 255, 256, 1000, 32766], *[[0] * 7] * 6], dtype=dtype)
    (result,) = bias([far])
    assert_close(result, reference_bias(bias, far))
    assert_close(result[:, 0, 3:], result[:, 0, 2:3].expand(-1, 4))
    assert_close(result[:, 3:, 0], result[:, 2:3, 0].expand(-1, 4))
    assert (result[:, 0, 1] != result[:, 0, 2]).all()


def test_signed_distances():
    distance = torch.tensor([[0, 1, 2, 0], [0, 0, 1, 0], [0, 0, 0, 0], [255, 0, 254, 0]], dtype=torch.int16)
    expected = [[0, 1, 2, -254], [-1, 0, 1, 0], [-2, -1, 0, -254], [254, 0, 254, 0]]
    result = signed_distance(distance)
    assert (result - 254).tolist() == expected
    assert result.dtype == torch.int64
    assert signed_distance(distance.clamp(max=254).to(torch.uint8)).tolist() == result.tolist()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_distances_are_not_changed(dtype):
    distance = torch.tensor([[0, 255, 1], [0, 0, 254], [0, 0, 0]], dtype=dtype)
    assert_pure(signed_distance, distance)
    assert_pure(distance_bias(), [distance])


def test_lookup():
    table = torch.arange(2 * 5.0).view(2, 5).requires_grad_()
    position = torch.tensor([[0, 4, 2], [2, 2, 1]])
    result = lookup_bias(table, position)
    assert result.tolist() == [[[0, 4, 2], [2, 2, 1]], [[5, 9, 7], [7, 7, 6]]]
    result.sum().backward()
    assert table.grad.tolist() == [[1, 1, 3, 0, 1]] * 2


def test_the_table_has_every_signed_distance():
    table = distance_bias().table()
    assert table.shape == (3, 509)
    assert len(table.T.unique(dim=0)) == 509


def test_sinusoids():
    table = sinusoids(5, 6)
    frequency = [1.0, 0.046415888336127774, 0.0021544346900318843]
    position = torch.arange(5.0)[:, None] * torch.tensor(frequency)
    expected = torch.empty(5, 6)
    expected[:, 0::2], expected[:, 1::2] = position.sin(), position.cos()
    expected[0] = 0
    torch.testing.assert_close(table, expected)
    assert table[0].tolist() == [0] * 6


def test_sinusoids_of_an_odd_width():
    assert sinusoids(3, 5).shape == (3, 5)


def test_distances_start_as_sinusoids():
    table = DistanceBias(12, 3).distance
    nn.init.constant_(table.weight, 5)
    table.reset_parameters()
    for weight in (table.weight, DistanceBias(12, 3).distance.weight):
        assert torch.equal(weight, sinusoids(257, 12))
        torch.testing.assert_close(weight[3, :2], torch.tensor([math.sin(3), math.cos(3)]))
        assert weight.requires_grad


# --- other precisions and compilers ----------------------------------------------------------------------------------


def test_half_precision_is_near():
    model = encoder()
    x, *rest = join(unequal_graphs(D))
    result = copy.deepcopy(model).bfloat16()(x.bfloat16(), *rest)
    assert result.dtype == torch.bfloat16
    assert_close(result.double(), model(x, *rest), 0.1)


def test_autocast_is_near():
    model = encoder().float()
    x, *rest = join(unequal_graphs(D))
    x = x.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = model(x, *rest)
    expected = model(x, *rest)
    assert not torch.equal(result, expected)
    assert_close(result.float(), expected, 0.05)
    result.float().square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_one_graph_for_the_compiler():
    model = encoder().float()
    x, *rest = join(unequal_graphs(D))
    x = x.float().requires_grad_()
    result, expected = torch.compile(model, fullgraph=True, backend="eager")(x, *rest), model(x, *rest)
    assert_close(result, expected, 1e-5)
    assert_same_gradients(result, expected, [x, *model.parameters()], 1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_equals_eager():
    model = encoder(layers=1).float()
    x, *rest = join([random_graph(nodes, D, seed=nodes) for nodes in (7, 3)])
    with torch.no_grad():
        assert_close(torch.compile(model)(x.float(), *rest), model(x.float(), *rest), 1e-5)
