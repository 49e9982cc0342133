import pytest
import torch

from ghn_pyg.nn.node_mlp import NodeMLP
from tests.properties import (
    ENCODER_PROPERTIES,
    TOLERANCE,
    any_order,
    assert_equivariant,
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
