"""Sums with vectors of parameters, rows that are repeated, and graph networks as PyTorch Geometric has them."""

import pytest
import torch
from torch import nn
from torch_geometric import nn as layers

from ghn_pyg import ParamSpec, from_module
from ghn_pyg.tracing.kept_reasons import Kept, enters
from tests.tracing.helpers import kinds, sources, weight
from tests.tracing.rules.helpers import graph_of, linear, small_ghn

X = torch.rand(3, 5)
# A product with a vector for all features or for those of each head, and how the vector is decoded.
VECTORS = {
    "of each head": (lambda h, a: (h * a).sum(-1), (1, 2, 7), {"axes": "ooi"}, [2, 7]),
    "of each head, by dim": (lambda h, a: (a * h).sum(dim=-1, keepdim=True), (2, 7), {}, [2, 7]),
    "of one head": (lambda h, a: (h * a).sum(-1), (1, 1, 7), {"axes": "ooi"}, [1, 7]),
    "of all heads": (lambda h, a: (h * a).sum(-1), (7,), {"axes": "i"}, [1, 7]),
    "einsum": (lambda h, a: torch.einsum("nhc,hc->nh", h, a), (2, 7), {}, [2, 7]),
    "matmul": (lambda h, a: h @ a, (7,), {"axes": "i"}, [1, 7]),
    "of a mean": (lambda h, a: (h.mean(1) * a).sum(-1), (1, 7), {}, [1, 7]),
}  # fmt: skip


@pytest.mark.parametrize(("score", "shape", "how", "node"), VECTORS.values(), ids=VECTORS)
def test_a_product_with_a_vector_that_is_summed_is_a_linear_layer(score, shape, how, node):
    graph = graph_of(
        lambda self, x: score(self.a(x).view(3, 2, 7).relu(), self.v), X, a=nn.Linear(5, 14), v=weight(*shape)
    )
    assert not graph.kept
    assert sources(graph)["v"] == ["a.bias"]
    assert graph.params[-1] == [ParamSpec("v", shape, "weight", **how)]
    assert graph.node_shape[-1].tolist() == [*node, 1, 1]
    prediction = small_ghn().predict(graph)["v"]
    assert prediction.shape == shape
    assert prediction.unique().numel() > 1


NO_VECTORS = {
    "of rows": (lambda h, a: (h * a).sum(0), (7,), Kept.LAYER_SCALE),
    "of each place": (lambda h, a: (h * a[:, :1]).sum(-1), (2, 7), Kept.LAYER_SCALE),
    "of a function of it": (lambda h, a: (h * a.exp()).sum(-1), (7,), Kept.LAYER_SCALE),
    "with an activation in between": (lambda h, a: (h * a).relu().sum(-1), (7,), Kept.LAYER_SCALE),
    "of rows and heads": (lambda h, a: torch.einsum("nhc,nhc->nh", h, a), (3, 2, 7), enters("a product")),
}  # fmt: skip


@pytest.mark.parametrize(("score", "shape", "reason"), NO_VECTORS.values(), ids=NO_VECTORS)
def test_other_scales_are_kept(score, shape, reason):
    graph = graph_of(
        lambda self, x: score(self.a(x).view(3, 2, 7).relu(), self.v), X, a=nn.Linear(5, 14), v=weight(*shape)
    )
    assert graph.kept == {"v": reason}


COUNTS = {
    "a buffer": (lambda self, x: torch.repeat_interleave(self.a(x), self.n, dim=0), 6),
    "a method": (lambda self, x: self.a(x).repeat_interleave(repeats=self.n, dim=0), 6),
    "an element": (lambda self, x: self.a(x).repeat_interleave(self.n[2], 0), 9),
    "a number": (lambda self, x: self.a(x).repeat_interleave(2, 0), 6),
    "activations": (lambda self, x: self.a(x).repeat_interleave(x.sum(1).long(), 0), 3),
}


@pytest.mark.parametrize(("repeat", "rows"), COUNTS.values(), ids=COUNTS)
def test_rows_that_are_repeated(repeat, rows):
    seen = []

    def forward(self, x):
        seen.append(repeated := repeat(self, x))
        return self.b(repeated)

    graph = graph_of(forward, X, a=linear(), b=linear(5, 2), n=torch.tensor([1, 2, 3]))
    assert [tensor.shape for tensor in seen] == [(rows, 5)]
    assert sources(graph)["b.weight"][-1] == "a.weight"


# --- graph networks --------------------------------------------------------------------------------------------------

NODES, EDGES = torch.rand(11, 5), torch.tensor([[0, 1, 2, 3, 9, 10], [1, 2, 3, 0, 10, 4]])
TYPES, OF_EDGES = torch.tensor([0, 1, 1, 0, 2, 2]), torch.rand(6, 3)
DEGREES = torch.tensor([4, 7])


def dense(into=5, out=7):
    return nn.Sequential(nn.Linear(into, 13), nn.ReLU(), nn.Linear(13, out))


CONVOLUTIONS = {
    "GCN": (layers.GCNConv(5, 7), (NODES, EDGES)),
    "U-Net": (layers.GraphUNet(5, 7, 2, depth=2), (NODES, EDGES)),
    "pooling by assignment": (layers.ASAPooling(5), (NODES, EDGES)),
    "GAT": (layers.GATConv(5, 7, heads=2, edge_dim=3), (NODES, EDGES, OF_EDGES)),
    "GAT, mean": (layers.GATConv(5, 7, heads=2, concat=False), (NODES, EDGES)),
    "GATv2": (layers.GATv2Conv(5, 7, heads=2), (NODES, EDGES)),
    "SuperGAT": (layers.SuperGATConv(5, 7, heads=2), (NODES, EDGES)),
    "GIN": (layers.GINConv(dense()), (NODES, EDGES)),
    "SAGE": (layers.SAGEConv(5, 7, aggr="max"), (NODES, EDGES)),
    "Chebyshev": (layers.ChebConv(5, 7, 3), (NODES, EDGES)),
    "ARMA": (layers.ARMAConv(5, 7, num_stacks=2, num_layers=3), (NODES, EDGES)),
    "GraphConv": (layers.GraphConv(5, 7), (NODES, EDGES)),
    "TAG": (layers.TAGConv(5, 7), (NODES, EDGES)),
    "RGCN": (layers.RGCNConv(5, 7, 3), (NODES, EDGES, TYPES)),
    "RGCN, fast": (layers.FastRGCNConv(5, 7, 3), (NODES, EDGES, TYPES)),
    "PNA": (layers.PNAConv(5, 7, ["mean", "max"], ["identity"], DEGREES), (NODES, EDGES)),
    "GPS": (layers.GPSConv(5, layers.GINConv(dense(out=5)), heads=1), (NODES, EDGES)),
    "gated": (layers.ResGatedGraphConv(5, 7), (NODES, EDGES)),
    "Transformer": (layers.TransformerConv(5, 7, heads=2, beta=True, edge_dim=3), (NODES, EDGES, OF_EDGES)),
    "MixHop": (layers.MixHopConv(5, 7), (NODES, EDGES)),
    "FeaSt": (layers.FeaStConv(5, 7, heads=2, bias=True), (NODES, EDGES)),
    "dense": (layers.DenseGATConv(5, 7, heads=2), (torch.rand(2, 3, 5), torch.ones(2, 3, 3))),
    "of an edge network": (layers.NNConv(5, 7, dense(3, 35)), (NODES, EDGES, OF_EDGES)),
    "pooling by attention": (layers.SAGPooling(5), (NODES, EDGES)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize(("layer", "inputs"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_all_parameters_of_a_graph_network_are_predicted(layer, inputs):
    graph = from_module(layer, inputs)
    assert graph.kept == {}
    assert {spec.name for specs in graph.params for spec in specs} == dict(layer.named_parameters()).keys()


def test_attention_of_a_graph_network():
    layer, inputs = CONVOLUTIONS["GAT, mean"]
    graph = from_module(layer, inputs)
    assert sources(graph) == {
        "input": [],
        "lin.weight": ["input"],
        "att_src": ["lin.weight"],
        "att_dst": ["lin.weight"],
        "sum": ["att_src", "att_dst"],
        "bias": ["lin.weight", "sum"],
    }
    assert graph.node_shape[2].tolist() == [2, 7, 1, 1]


def test_relations_of_edges_choose_matrices():
    layer = layers.RGATConv(5, 7, 3)
    graph = from_module(layer, (NODES, EDGES, TYPES))
    assert graph.kept == dict.fromkeys(("w", "l1", "b1", "l2", "b2"), Kept.UNUSED)
    assert graph.params[1] == [ParamSpec("weight", (3, 5, 7), "weight", "in_out", stacked=1)]
    assert sources(graph)["weight"] == sources(graph)["conv"] == ["input"]  # the source and the target of each edge
    assert sources(graph)["bias"] == ["conv", "sum"]


def test_attention_vectors_of_heads_differ():
    torch.manual_seed(0)
    layer, inputs = CONVOLUTIONS["GAT, mean"]
    vectors = small_ghn().predict(from_module(layer, inputs))["att_src"]
    assert vectors.shape == (1, 2, 7)
    assert not torch.equal(vectors[0, 0], vectors[0, 1])


def test_means_over_tokens_are_averages_and_those_over_heads_are_not():
    last = linear(7, 2)
    tokens = graph_of(lambda self, x: self.b(self.a(x).mean(1)), torch.rand(3, 2, 5), a=linear(5, 7), b=last)
    heads = graph_of(lambda self, x: self.b(self.a(x).view(3, 2, 7).mean(1)), X, a=linear(5, 14), b=last)
    assert kinds(tokens) == ["input", "conv", "glob_avg", "conv"]
    assert kinds(heads) == ["input", "conv", "conv"]


@pytest.mark.filterwarnings("ignore:.*(CSR|invariant checks):UserWarning")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_graph_that_is_a_sparse_buffer(layout):
    adjacency = torch.eye(11).to_sparse(layout=layout)
    for conv in (layers.GCNConv(5, 7, normalize=False), layers.SAGEConv(5, 7)):
        graph = graph_of(lambda self, x: self.conv(x, self.adjacency), NODES, conv=conv, adjacency=adjacency)
        assert graph.kept == {}
        assert graph.num_nodes == 1 + len(list(conv.parameters())) + isinstance(conv, layers.SAGEConv)
