import numpy as np
import pytest
import torch

from ghn_pyg.nn.gated_gnn import GatedGNN, Messages, longest_paths, schedule
from tests.properties import (
    ENCODER_PROPERTIES,
    TOLERANCE,
    assert_close,
    assert_same_gradients,
    chain,
    graph_of,
    join,
    matrix,
    name_of,
    random_graph,
    unequal_graphs,
)

D = 12
KINDS = pytest.mark.parametrize("virtual", [True, False], ids=["ghn2", "ghn1"])
DIAMOND = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (0, 4)]


def encoder(virtual, channels=D):
    torch.manual_seed(3)
    return GatedGNN(channels, virtual_edges=virtual).double()


# --- the walk, node by node ------------------------------------------------------------------------------------------


def reference_mlp(mlp, state):
    hidden = torch.clamp(mlp[0].weight @ state + mlp[0].bias, min=0)
    return torch.clamp(mlp[2].weight @ hidden + mlp[2].bias, min=0)


def reference_gru(gru, message, state):
    reset_in, update_in, new_in = (gru.weight_ih @ message + gru.bias_ih).chunk(3)
    reset_old, update_old, new_old = (gru.weight_hh @ state + gru.bias_hh).chunk(3)
    reset, update = torch.sigmoid(reset_in + reset_old), torch.sigmoid(update_in + update_old)
    return (1 - update) * torch.tanh(new_in + reset * new_old) + update * state


def reference(encoder, graph):
    """One graph, one node after another, forward and back."""
    states, distance = list(graph.x.unbind()), matrix(graph).tolist()
    nodes = range(len(states))
    for order, away in (nodes, lambda u, v: distance[u][v]), (nodes[::-1], lambda u, v: distance[v][u]):
        for v in order:
            message = torch.zeros(len(states[v]), dtype=torch.float64)
            for u in nodes:
                if away(u, v) == 1:
                    message = message + reference_mlp(encoder.mlp, states[u])
                if encoder.virtual_mlp is not None and 1 <= away(u, v) <= 50:
                    message = message + reference_mlp(encoder.virtual_mlp, states[u]) / away(u, v)
            states[v] = reference_gru(encoder.gru, message, states[v])
    return torch.stack(states)


# --- the encoder -----------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("holds", ENCODER_PROPERTIES, ids=name_of)
def test_properties(holds, dtype, virtual):
    holds(encoder(virtual).to(dtype), D)


@KINDS
@pytest.mark.parametrize(("nodes", "density"), [(1, 0), (2, 1), (5, 0), (17, 0.2), (11, 0.9)])
def test_the_walk_agrees(nodes, density, virtual):
    model, graph = encoder(virtual), random_graph(nodes, D, seed=nodes, density=density)
    graph.x.requires_grad_()
    result, expected = model(*graph), reference(model, graph)
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, [graph.x, *model.parameters()])


@KINDS
def test_the_walk_agrees_on_a_ragged_batch(virtual):
    model, graphs = encoder(virtual), unequal_graphs(D)
    x, *rest = join(graphs)
    x.requires_grad_()
    parts = x.split([len(graph.x) for graph in graphs])
    expected = torch.cat([reference(model, graph._replace(x=part)) for graph, part in zip(graphs, parts, strict=True)])
    result = model(x, *rest)
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, [x, *model.parameters()])


@KINDS
def test_the_walk_agrees_on_a_chain_longer_than_the_cutoff(virtual):
    model, graph = encoder(virtual), chain(59, D)
    assert matrix(graph)[0].tolist() == [*range(51), *[0] * 8]
    assert_close(model(*graph), reference(model, graph), 1e-9)


@KINDS
def test_autocast_is_near(virtual):
    model = encoder(virtual).float()
    x, *rest = join(unequal_graphs(D))
    with torch.autocast("cpu", torch.bfloat16):
        result = model(x.float(), *rest)
    assert_close(result.float(), model(x.float(), *rest), 0.1)
    result.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@KINDS
@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([[0, 2], [1, 1]], "edges must point from a node to a later one, without cycles and self loops"),
        ([[0, 1], [1, 0]], "edges must point from a node to a later one"),
        ([[0, 1], [1, 1]], "edges must point from a node to a later one"),
        ([[0, 1], [1, 3]], "edges expected nodes 0 to 2, got 0 to 3"),
        ([[-1, 1], [1, 2]], "edges expected nodes 0 to 2, got -1 to 2"),
    ],
)
def test_graphs_that_are_not_in_topological_order(edges, message, virtual):
    with pytest.raises(ValueError, match=message):
        encoder(virtual)(torch.zeros(3, D).double(), torch.tensor(edges), torch.zeros(9, dtype=torch.uint8))


def test_distances_are_for_virtual_edges():
    graph = random_graph(7, D)
    model = encoder(virtual=False)
    assert torch.equal(model(graph.x, graph.edge_index), model(*graph))
    with pytest.raises(ValueError, match="virtual edges need the distances of all pairs of nodes, got none"):
        encoder(virtual=True)(graph.x, graph.edge_index)


# --- the order of updates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "nodes", "expected"),
    [
        ([], 3, [0, 0, 0]),
        (DIAMOND, 5, [0, 1, 1, 2, 3]),
        ([(2, 3), (0, 1), (1, 2), (0, 3)], 5, [0, 1, 2, 3, 0]),
        ([(1, 2), (1, 2)], 3, [0, 0, 1]),
    ],
)
def test_longest_paths(edges, nodes, expected):
    edge_index = graph_of(edges, nodes, 1).edge_index.numpy()
    assert longest_paths(edge_index, nodes).tolist() == expected


def _no_messages():
    return Messages(*(np.empty(0, dtype=int) for _ in range(3)), np.empty(0))


def test_more_levels_than_sixteen_bits_hold():
    count = 2**15 + 2
    levels = schedule(np.arange(count)[::-1], _no_messages(), like=torch.zeros(1))
    assert len(levels) == count
    assert [int(level.nodes) for level in levels[:3]] == [count - 1, count - 2, count - 3]


def test_the_diamond():
    """By hand: all weights are such that a node takes over its message, and a message is the sender's state."""
    model = GatedGNN(2, virtual_edges=False).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.mlp[0].weight.copy_(torch.eye(2))
        model.mlp[2].weight.copy_(torch.eye(2))
        model.gru.weight_ih[4:].copy_(torch.eye(2))  # the new state is tanh(message)
        model.gru.bias_ih[2:4] = -100  # and takes over entirely
        model.gru.bias_ih[4:] = torch.tensor([0.5, 0.25])
    graph = graph_of(DIAMOND, 5, 2)
    first, second = torch.tensor([0.5, 0.25], dtype=torch.float64).tanh(), torch.tensor([0.5, 0.25]).double()
    one = (first + second).tanh()  # of node 3 in the backward pass, whose only successor is 4
    two = (one + second).tanh()  # of 1 and 2
    zero = (2 * two + first + second).tanh()  # its successors are 1, 2 and 4
    assert_close(model(*graph), torch.stack([zero, two, two, one, first]))


def test_no_message_travels_further_than_50():
    model = encoder(virtual=True)
    assert_close(model(*chain(59, D, cutoff=1000)), reference(model, chain(59, D)), 1e-9)
