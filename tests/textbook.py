"""Graphormer and GHN-3 by the textbook, in float64 and without any cleverness."""

import torch

from tests.properties import matrix


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
