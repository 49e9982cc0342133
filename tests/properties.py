"""Properties that every encoder and every decoder has, as assertions, and random graphs to try them on."""

import copy
from typing import NamedTuple

import torch
from torch_geometric.data import Data

from ghn_pyg.nn.decoders import Group
from ghn_pyg.transforms import AddShortestPathDistance, shortest_paths


class Graph(NamedTuple):
    """What an encoder takes, without the batch."""

    x: torch.Tensor
    edge_index: torch.Tensor
    distance: torch.Tensor


def graph_of(edges, nodes, channels, seed=0, dtype=torch.float64, cutoff=50):
    """A graph with these edges and random states."""
    edge_index = torch.tensor(edges, dtype=torch.long).view(-1, 2).t().contiguous()
    x = torch.randn(nodes, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Graph(x.to(dtype), edge_index, shortest_paths(edge_index, nodes, cutoff).flatten())


def random_graph(nodes, channels, seed=0, density=0.3, dtype=torch.float64):
    """A graph whose nodes stand in topological order."""
    draw = torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(seed))
    return graph_of((draw.triu(1) > 1 - density).nonzero().tolist(), nodes, channels, seed, dtype)


def cyclic_graph(nodes, channels, seed=0, dtype=torch.float64):
    """A graph with edges between any two nodes: cycles and edges in both directions among them."""
    generator = torch.Generator().manual_seed(seed)
    edges = (torch.rand(nodes, nodes, generator=generator) < 0.2).fill_diagonal_(False).nonzero().t()
    x = torch.randn(nodes, channels, generator=generator, dtype=torch.float64).to(dtype)
    data = AddShortestPathDistance(directed=True)(Data(edge_index=edges, num_nodes=nodes))
    return Graph(x, edges, data.distance)


def chain(nodes, channels, seed=0, cutoff=50, dtype=torch.float64):
    """Every node depends on the one before it."""
    return graph_of([(node, node + 1) for node in range(nodes - 1)], nodes, channels, seed, dtype, cutoff)


def unequal_graphs(channels, dtype=torch.float64):
    """Graphs of very different size and density, among them a single node and nodes without edges."""
    sizes = [(1, 0.0), (23, 0.2), (2, 1.0), (5, 0.0), (13, 0.9), (1, 0.0), (3, 0.5)]
    return [random_graph(nodes, channels, seed, density, dtype) for seed, (nodes, density) in enumerate(sizes)]


def matrix(graph):
    """The distances, of shape (N, N)."""
    return graph.distance.view(len(graph.x), -1).long()


def join(graphs):
    """The graphs as one batch: an encoder's arguments."""
    sizes = [len(graph.x) for graph in graphs]
    starts = [sum(sizes[:position]) for position in range(len(sizes))]
    edges = [graph.edge_index + start for graph, start in zip(graphs, starts, strict=True)]
    return (
        torch.cat([graph.x for graph in graphs]),
        torch.cat(edges, dim=1),
        torch.cat([graph.distance for graph in graphs]),
        torch.arange(len(graphs)).repeat_interleave(torch.tensor(sizes)),
    )


def renumber(graph, order):
    """The same graph, where the new node i is the old node ``order[i]``."""
    place = torch.empty(len(order), dtype=torch.long)
    place[order] = torch.arange(len(order))
    return Graph(graph.x[order], place[graph.edge_index], matrix(graph)[order][:, order].flatten())


def topological_order(graph, seed):
    """A random order of the nodes in which every edge points forward, the first node first."""
    generator = torch.Generator().manual_seed(seed)
    edges = graph.edge_index.t().tolist()
    left, order = set(range(1, len(graph.x))), [0]
    while left:
        ready = sorted(node for node in left if not any(v == node and u in left for u, v in edges))
        order.append(ready[int(torch.randint(len(ready), (), generator=generator))])
        left.remove(order[-1])
    return torch.tensor(order)


def any_order(graph, seed):
    """A random order of the nodes, the first node first."""
    others = torch.randperm(len(graph.x) - 1, generator=torch.Generator().manual_seed(seed))
    return torch.cat((torch.tensor([0]), others + 1))


def assert_close(actual, expected, tolerance=1e-10):
    """Equal shapes and types, and numbers up to ``tolerance``, absolute and relative."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def assert_pure(function, *args):
    """Changes no input, returns no view of one, and gives the same again."""
    before = copy.deepcopy(args)
    first, second = function(*args), function(*args)
    torch.testing.assert_close(args, before, rtol=0, atol=0)
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    owned = {tensor.untyped_storage().data_ptr() for tensor in _tensors(args)}
    assert not any(tensor.untyped_storage().data_ptr() in owned for tensor in _tensors(first))


def assert_equivariant(encoder, graph, order, tolerance=1e-10):
    """Renumbering the nodes renumbers the result and nothing else."""
    assert_close(encoder(*renumber(graph, order)), encoder(*graph)[order], tolerance)


def assert_same_gradients(actual, expected, leaves, tolerance=1e-9):
    """Random sums of both results have the same gradients with respect to ``leaves``."""
    factors = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5), dtype=expected.dtype)
    factors = factors.to(expected.device)
    first = torch.autograd.grad((actual * factors).sum(), leaves, allow_unused=True, materialize_grads=True)
    second = torch.autograd.grad((expected * factors).sum(), leaves, allow_unused=True, materialize_grads=True)
    assert_close(first, second, tolerance)


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


# --- encoders, called as encoder(x, edge_index, distance, batch), in any precision ----------------------------------

# Rounding adds up over layers: what a few layers of width 12 need.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.15}


def precision(encoder):
    """The type of the encoder's numbers, and how near equal results are."""
    dtype = next(encoder.parameters()).dtype
    return dtype, TOLERANCE[dtype]


def a_batch_is_one_by_one(encoder, channels):
    dtype, tolerance = precision(encoder)
    graphs = unequal_graphs(channels, dtype)
    together = encoder(*join(graphs))
    assert_close(together, torch.cat([encoder(*graph) for graph in graphs]), tolerance)
    turned = encoder(*join(graphs[::-1])).split([len(graph.x) for graph in graphs[::-1]])
    assert_close(torch.cat(turned[::-1]), together, tolerance)


def graphs_do_not_see_one_another(encoder, channels):
    graphs = unequal_graphs(channels, precision(encoder)[0])
    before = encoder(*join(graphs))
    other = graphs[1]._replace(x=graphs[1].x + 3 * torch.arange(23)[:, None].to(graphs[1].x).cos())
    after = encoder(*join([graphs[0], other, *graphs[2:]]))
    changed = (after != before).any(1)
    assert changed.tolist() == [False] * 1 + [True] * 23 + [False] * 24


def a_batch_of_one_is_the_graph(encoder, channels):
    graph = random_graph(7, channels, dtype=precision(encoder)[0])
    batch = torch.zeros(7, dtype=torch.long)
    torch.testing.assert_close(encoder(*graph, batch), encoder(*graph), rtol=0, atol=0)


def nodes_may_come_in_any_topological_order(encoder, channels):
    dtype, tolerance = precision(encoder)
    for seed in range(5):
        graph = random_graph(17, channels, seed, dtype=dtype)
        assert_equivariant(encoder, graph, topological_order(graph, seed), tolerance)


def nodes_may_come_in_any_order_in_cyclic_graphs(encoder, channels):
    dtype, tolerance = precision(encoder)
    for seed in range(3):
        graph = cyclic_graph(13, channels, seed, dtype)
        order = torch.randperm(13, generator=torch.Generator().manual_seed(seed))
        assert_equivariant(encoder, graph, order, tolerance)


def edges_may_come_in_any_order(encoder, channels):
    dtype, tolerance = precision(encoder)
    graph = random_graph(13, channels, dtype=dtype)
    turned = graph._replace(edge_index=graph.edge_index.flip(1))
    assert_close(encoder(*turned), encoder(*graph), tolerance)


def inputs_stay_and_a_second_call_is_identical(encoder, channels):
    dtype = precision(encoder)[0]
    assert_pure(encoder, *join(unequal_graphs(channels, dtype)))
    assert_pure(encoder, *random_graph(1, channels, dtype=dtype))
    assert_pure(encoder, *chain(307, channels, cutoff=1000, dtype=dtype))


def results_are_finite_without_edges(encoder, channels):
    dtype = precision(encoder)[0]
    for nodes in (1, 2, 11):
        result = encoder(*random_graph(nodes, channels, density=0, dtype=dtype))
        assert result.shape == (nodes, channels)
        assert result.dtype == dtype
        assert result.isfinite().all()


def gradients_are_finite(encoder, channels):
    x, *rest = join(unequal_graphs(channels, precision(encoder)[0]))
    x.requires_grad_()
    encoder(x, *rest).square().sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.any(1).all()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())
    assert all(parameter.grad.any() for parameter in encoder.parameters())


ENCODER_PROPERTIES = (
    a_batch_is_one_by_one,
    graphs_do_not_see_one_another,
    a_batch_of_one_is_the_graph,
    nodes_may_come_in_any_topological_order,
    edges_may_come_in_any_order,
    inputs_stay_and_a_second_call_is_identical,
    results_are_finite_without_edges,
    gradients_are_finite,
)

# --- decoders, called as decoder(x, groups) -> blocks of each group, in any precision; C = 7, S = 5 -----------------

GROUPS = (
    Group([3, 0], (3, 3), 7, 5),
    Group([1], (1, 1), 2, 7),
    Group([4, 2, 6], (3, 3), 1, 1),
    Group([5], (1, 1), None, 3),
    Group([1, 5], (7, 4), 5, 2),
    Group([2, 0], (1, 1), None, 7),
)


def embeddings(channels, nodes=7, dtype=torch.float64):
    """Random embeddings."""
    return torch.randn(nodes, channels, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(dtype)


def groups_together_are_each_alone(decoder, channels):
    dtype, tolerance = precision(decoder)
    x = embeddings(channels, dtype=dtype)
    together = decoder(x, GROUPS)
    assert_close(together, [block for group in GROUPS for block in decoder(x, [group])], tolerance)
    assert_close(decoder(x, GROUPS[::-1])[::-1], together, tolerance)


def nodes_of_a_group_together_are_each_alone(decoder, channels):
    dtype, tolerance = precision(decoder)
    x = embeddings(channels, dtype=dtype)
    for group, blocks in zip(GROUPS, decoder(x, GROUPS), strict=True):
        alone = [decoder(x, [group._replace(nodes=[node])])[0] for node in group.nodes]
        assert_close(blocks, torch.cat(alone), tolerance)


def nodes_may_come_in_any_order(decoder, channels):
    dtype, tolerance = precision(decoder)
    x, order = embeddings(channels, dtype=dtype), torch.tensor([4, 1, 0, 6, 2, 5, 3])
    moved = [group._replace(nodes=[order.tolist().index(node) for node in group.nodes]) for group in GROUPS]
    assert_close(decoder(x[order], moved), decoder(x, GROUPS), tolerance)


def a_smaller_block_is_the_start_of_a_larger(decoder, channels):
    dtype, tolerance = precision(decoder)
    x = embeddings(channels, dtype=dtype)
    (whole,) = decoder(x, [Group([2, 3], (3, 2), 7, 7)])
    for out, into in [(1, 1), (3, 7), (7, 2), (5, 3)]:
        (part,) = decoder(x, [Group([2, 3], (3, 2), out, into)])
        assert_close(part, whole[:, :out, :into], tolerance)


def embeddings_stay_and_a_second_call_is_identical(decoder, channels):
    assert_pure(lambda x: decoder(x, GROUPS), embeddings(channels, dtype=precision(decoder)[0]))


def blocks_have_the_shape_of_their_group(decoder, channels):
    dtype = precision(decoder)[0]
    found = decoder(embeddings(channels, dtype=dtype), GROUPS)
    assert all(blocks.dtype == dtype for blocks in found)
    shapes = [tuple(blocks.shape) for blocks in found]
    assert shapes == [(2, 7, 5, 3, 3), (1, 2, 7, 1, 1), (3, 1, 1, 3, 3), (1, 11, 3, 1, 1), (2, 5, 2, 7, 4),
                      (2, 11, 7, 1, 1)]  # fmt: skip


def every_block_is_finite(decoder, channels):
    drawn = embeddings(channels, dtype=precision(decoder)[0])
    for x in (drawn, torch.zeros_like(drawn), 1e3 * drawn):
        assert all(blocks.isfinite().all() for blocks in decoder(x, GROUPS))


def blocks_in_single_precision_are_near(decoder, channels):
    dtype, tolerance = precision(decoder)
    x = embeddings(channels, dtype=dtype)
    results = copy.deepcopy(decoder).float()(x.float(), GROUPS)
    for blocks, expected in zip(results, decoder(x, GROUPS), strict=True):
        assert blocks.dtype == torch.float32
        assert_close(blocks.double(), expected.double(), max(tolerance, 1e-4))


DECODER_PROPERTIES = (
    groups_together_are_each_alone,
    nodes_of_a_group_together_are_each_alone,
    nodes_may_come_in_any_order,
    a_smaller_block_is_the_start_of_a_larger,
    embeddings_stay_and_a_second_call_is_identical,
    blocks_have_the_shape_of_their_group,
    every_block_is_finite,
    blocks_in_single_precision_are_near,
)


def name_of(holds):
    """The name of a property, for the report of a parametrised test."""
    return holds.__name__
