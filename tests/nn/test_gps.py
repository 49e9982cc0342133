import torch
from torch_geometric.nn import GATv2Conv, GPSConv, SAGEConv

from ghn_pyg.nn import Blocks, GPSLayer, SpatialEncoding
from tests.properties import assert_close, assert_same_gradients, join, unequal_graphs

D, HEADS = 12, 3


def copied(layer, conv):
    """PyTorch Geometric's layer with the weights of ours."""
    reference = GPSConv(D, conv, HEADS, dropout=layer.dropout, act="relu", norm="batch_norm").double()
    pairs = [
        (reference.attn.in_proj_weight, layer.qkv.weight), (reference.attn.in_proj_bias, layer.qkv.bias),
        (reference.attn.out_proj.weight, layer.out.weight), (reference.attn.out_proj.bias, layer.out.bias),
        (reference.mlp[0].weight, layer.ff[0].weight), (reference.mlp[0].bias, layer.ff[0].bias),
        (reference.mlp[3].weight, layer.ff[2].weight), (reference.mlp[3].bias, layer.ff[2].bias),
    ]  # fmt: skip
    with torch.no_grad():
        for theirs, ours in pairs:
            theirs.copy_(ours.normal_(std=0.3))
    return reference


def test_it_is_the_convolution_of_pyg():
    torch.manual_seed(3)
    conv = SAGEConv(D, D).double()
    layer = GPSLayer(D, conv, HEADS).double()
    reference = copied(layer, conv)
    x, edges, _, batch = join(unequal_graphs(D))
    x.requires_grad_()
    found, expected = layer(x, edges, batch), reference(x, edges, batch)
    assert_close(found, expected, 1e-9)
    assert_same_gradients(found, expected, [x, *conv.parameters()])


def test_biases_and_features_of_edges():
    torch.manual_seed(3)
    layer = GPSLayer(D, GATv2Conv(D, D, edge_dim=5), HEADS, norm="layer")
    x, edges, distance, batch = join(unequal_graphs(D, torch.float32))
    blocks, attr = Blocks.of(batch, len(x)), torch.randn(edges.size(1), 5)
    bias = SpatialEncoding(HEADS)(distance, blocks)
    assert not torch.allclose(layer(x, edges, blocks, bias, edge_attr=attr), layer(x, edges, blocks, edge_attr=attr))


def test_attention_alone():
    layer = GPSLayer(D, None, HEADS, norm="layer")
    x, edges, _, batch = join(unequal_graphs(D, torch.float32))
    assert_close(layer(x, edges, batch)[1:24], layer(x[1:24], edges), 1e-4)
