import pytest
import torch

from ghn_pyg.nn.node_mlp import NodeMLP
from tests.properties import (
    ENCODER_PROPERTIES,
    TOLERANCE,
    any_order,
    assert_close,
    assert_equivariant,
    assert_same_gradients,
    chain,
    name_of,
    random_graph,
)


def encoder(channels=12):
    torch.manual_seed(3)
    return NodeMLP(channels).double()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("holds", ENCODER_PROPERTIES, ids=name_of)
def test_properties(holds, dtype):
    holds(encoder().to(dtype), 12)


def test_every_node_for_itself():
    mlp = encoder(7)
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    (weight1, bias1), (weight2, bias2) = ((mlp.mlp[at].weight, mlp.mlp[at].bias) for at in (0, 2))
    rows = []
    for row in x:
        hidden = torch.stack([torch.clamp((weight1[j] * row).sum() + bias1[j], min=0) for j in range(7)])
        rows.append(torch.stack([torch.clamp((weight2[j] * hidden).sum() + bias2[j], min=0) for j in range(7)]))
    expected, result = torch.stack(rows), mlp(x, *chain(5, 7)[1:])
    assert_close(result, expected)
    assert_same_gradients(result, expected, [x, *mlp.parameters()])


def test_the_graph_makes_no_difference():
    sparse, dense = random_graph(11, 12, density=0.1), random_graph(11, 12, density=0.9)
    assert torch.equal(encoder()(*sparse), encoder()(sparse.x, *dense[1:]))


def test_any_order_of_nodes():
    graph = random_graph(11, 12)
    assert_equivariant(encoder(), graph, any_order(graph, seed=3))


def test_literal_values():
    mlp = NodeMLP(2)
    with torch.no_grad():
        for at, weight, bias in ((0, [[1, -1], [2, 0]], [0, 1]), (2, [[1, 1], [-1, 1]], [0.5, -4])):
            mlp.mlp[at].weight.copy_(torch.tensor(weight))
            mlp.mlp[at].bias.copy_(torch.tensor(bias))
    x = torch.tensor([[3.0, 1.0], [1.0, 3.0]])
    assert mlp(x, torch.empty(2, 0, dtype=torch.long), torch.zeros(4)).tolist() == [[9.5, 1.0], [3.5, 0.0]]
