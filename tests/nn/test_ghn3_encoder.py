import pytest
import torch

from ghn_pyg.nn.blocks import Blocks
from ghn_pyg.nn.ghn3_encoder import GHN3Encoder
from tests.properties import (
    ENCODER_PROPERTIES,
    TOLERANCE,
    any_order,
    assert_close,
    assert_equivariant,
    assert_same_gradients,
    graph_of,
    join,
    matrix,
    name_of,
    random_graph,
    unequal_graphs,
)
from tests.textbook import reference

D, HEADS = 12, 3


def encoder(layers=2):
    torch.manual_seed(3)
    return GHN3Encoder(D, layers, HEADS).double()


# --- the encoder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("holds", ENCODER_PROPERTIES, ids=name_of)
def test_properties(holds, dtype):
    holds(encoder().to(dtype), D)


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
    model, graph = GHN3Encoder(D, 1, heads).double(), random_graph(11, D)
    assert_close(model(*graph), reference(model, graph), 1e-9)


def test_any_order_behind_the_input():
    for seed in range(5):
        graph = random_graph(13, D, seed)
        assert_equivariant(encoder(), graph, any_order(graph, seed))


def test_the_first_node_is_the_input():
    graph = graph_of([(0, 1), (1, 2)], nodes=3, channels=D)
    order = torch.tensor([1, 0, 2])
    turned = encoder()(graph.x[order], torch.tensor([[1, 0], [0, 2]]), matrix(graph)[order][:, order].flatten())
    assert not torch.allclose(turned, encoder()(*graph)[order])


# --- other precisions and compilers ----------------------------------------------------------------------------------


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
    rest[-1] = Blocks.of(rest[-1], len(x))  # whose making needs numbers
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
