import pytest
import torch
from torch import nn
from torch_geometric.nn import GATv2Conv, GCNConv, GINEConv, GPSConv

from ghn_pyg.nn import Blocks, ConvEncoder

D = 6


class Listener(nn.Module):
    """Says what it was called with."""

    def __init__(self):
        super().__init__()
        self.heard = None

    def forward(self, x, edge_index, edge_attr, batch):
        self.heard = (edge_index, edge_attr, batch)
        return x


def test_messages_go_both_ways_and_know_which():
    listener = Listener()
    encoder = ConvEncoder(D, [listener])
    batch = torch.tensor([0, 0, 0, 1, 1])
    encoder(torch.randn(5, D), torch.tensor([[0, 1, 3], [1, 2, 4]]), None, batch)
    edges, attr, heard = listener.heard
    assert edges.tolist() == [[0, 1, 3, 1, 2, 4], [1, 2, 4, 0, 1, 3]]
    forward, back = encoder.direction.weight
    assert torch.equal(attr, torch.stack([forward] * 3 + [back] * 3))
    assert torch.equal(heard, batch)
    encoder(torch.randn(5, D), torch.tensor([[0], [1]]), None, Blocks.of(batch, 5))
    assert torch.equal(listener.heard[2], batch)


def test_the_formula():
    torch.manual_seed(3)
    encoder = ConvEncoder(D, [nn.Linear(D, D), nn.Linear(D, D)], arguments=())
    x = torch.randn(5, D)
    expected = x
    for norm, layer in zip(encoder.norms, encoder.layers, strict=True):
        normal = (expected - expected.mean(1, keepdim=True)) / torch.sqrt(
            expected.var(1, keepdim=True, correction=0) + 1e-5
        )
        expected = expected + torch.clamp((normal * norm.weight + norm.bias) @ layer.weight.T + layer.bias, min=0)
    torch.testing.assert_close(encoder(x, torch.tensor([[0], [1]])), expected)


@pytest.mark.parametrize(
    ("make", "arguments", "taken"),
    [
        (lambda: GCNConv(D, D), None, ("edge_index",)),
        (lambda: GATv2Conv(D, D, edge_dim=D), None, ("edge_index", "edge_attr")),
        (lambda: GPSConv(D, GCNConv(D, D), norm=None), None, ("edge_index", "batch")),
        (
            lambda: GPSConv(D, GINEConv(nn.Linear(D, D)), norm=None),
            ("edge_index", "edge_attr", "batch"),
            ("edge_index", "edge_attr", "batch"),
        ),
    ],
)
def test_modules_are_given_what_they_take(make, arguments, taken):
    encoder = ConvEncoder(D, [make(), make()], arguments)
    assert encoder.arguments == [taken, taken]
    assert (encoder.direction is not None) == ("edge_attr" in taken)
    assert encoder(torch.randn(3, D), torch.tensor([[0, 1], [1, 2]])).shape == (3, D)


def test_each_module_is_given_what_it_takes():
    encoder = ConvEncoder(D, [GCNConv(D, D), GATv2Conv(D, D, edge_dim=D)])
    assert encoder.arguments == [("edge_index",), ("edge_index", "edge_attr")]
    encoder(torch.randn(3, D), torch.tensor([[0, 1], [1, 2]])).sum().backward()
    assert encoder.direction.weight.grad.any()


class Twice(nn.Module):
    def forward(self, x, edge_index):
        return x, x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (GCNConv(D, 1), r"GCNConv expected to return nodes \(3, 6\), got \(3, 1\)"),
        (GCNConv(D, 5), r"GCNConv expected to return nodes \(3, 6\), got \(3, 5\)"),
        (Twice(), r"Twice expected to return nodes \(3, 6\), got tuple"),
    ],
)
def test_modules_that_do_not_keep_the_width(module, message):
    with pytest.raises(ValueError, match=message):
        ConvEncoder(D, [module])(torch.randn(3, D), torch.tensor([[0, 1], [1, 2]]))


def test_batch_norms():
    with pytest.raises(
        ValueError, match=r"must not mix the graphs of a batch, got the batch norm 0\.norm1\.module; leave it"
    ):
        ConvEncoder(D, [GPSConv(D, GCNConv(D, D))])


def test_bad_modules():
    with pytest.raises(ValueError, match="ConvEncoder expected at least one module, got none"):
        ConvEncoder(D, [])
    with pytest.raises(ValueError, match="arguments expected some of edge_index, edge_attr, batch, got distance"):
        ConvEncoder(D, [GCNConv(D, D)], ["edge_index", "distance"])


def test_a_single_module():
    with pytest.raises(TypeError, match="modules expected a list of modules, one for each layer, got one GCNConv"):
        ConvEncoder(8, GCNConv(8, 8))
