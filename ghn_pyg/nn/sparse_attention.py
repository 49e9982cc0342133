"""Attention over given pairs of nodes, for graphs that are too large for all pairs."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.inits import reset
from torch_geometric.utils import softmax

from .blocks import Blocks, distance_matrices
from .transformer_layer import TransformerLayer

_HOPS: Final = (1, 2, 4, 8, 16, 32)
_PAIR_TYPES: Final = 3 + 2 * len(_HOPS)
"""A node itself; each number of hops ahead, then behind; node to global node; global node to node."""


class SparseGraphormerLayer(TransformerLayer):
    r"""A pre-norm transformer layer whose attention goes over given pairs of nodes.

    With all pairs of each graph it equals :class:`~ghn_pyg.nn.GraphormerLayer`, whose weights it can load. Time and
    memory grow with the number of pairs :math:`P`.

    Args:
        channels: Width :math:`d`.
        heads: Number of heads :math:`H`; it divides :math:`d`.
        dropout: Dropout probability of both updates, and of attention weights by default.
        options: Options of :class:`~ghn_pyg.nn.TransformerLayer`.

    Shapes:
        - **input:** nodes :math:`(N, d)`, pairs :math:`(2, P)` of a query and a key, such as ``pair_index`` of
          :class:`~ghn_pyg.transforms.AddShortestPathPairs`, which has no pair of a node with itself, and
          their biases :math:`(P, H)` (none by default); the ``batch`` of nodes is for norms and dropout of graphs
        - **output:** nodes :math:`(N, d)`; a node without pairs attends to nothing

    Raises:
        ValueError: If ``heads`` does not divide ``channels``.

    Example:
        >>> layer = SparseGraphormerLayer(channels=8, heads=2)
        >>> layer(torch.zeros(3, 8), torch.tensor([[0, 1, 2], [0, 0, 2]])).shape
        torch.Size([3, 8])
    """

    def attend(self, x: Tensor, pair_index: Tensor, bias: Tensor | None) -> Tensor:
        """Attention over the pairs."""
        query, key, value = self.heads_of(x)
        queries, keys = pair_index
        score = (query.index_select(0, queries) * key.index_select(0, keys)).sum(-1) / query.size(-1) ** 0.5
        weight = softmax(score if bias is None else score + bias, queries, num_nodes=x.size(0))
        weight = F.dropout(weight, self.dropout_of_attention())
        weighted = weight[..., None].to(value.dtype) * value.index_select(0, keys)
        return self.out(torch.zeros_like(value).index_add(0, queries, weighted).flatten(1))

    def forward(
        self,
        x: Tensor,
        pair_index: Tensor,
        bias: Tensor | None = None,
        batch: Tensor | Blocks | None = None,
    ) -> Tensor:
        """Applies the layer."""
        return self.update(x, Blocks.of(batch, x.size(0)), lambda x: self.attend(x, pair_index, bias))


class SparseTransformer(nn.Module):
    r"""An encoder with sparse attention in the style of Exphormer (arXiv 2303.06147).

    A node attends to itself, to the nodes at distances 1, 2, 4, …, 32 in both directions, and to a global node of its
    graph, which attends to all nodes. Exphormer's far neighbors come from a random expander graph, which depends
    on the order of nodes; these do not. The number of pairs grows like :math:`N \log N` in deep graphs; only the
    distances, a byte per pair, grow like :math:`N^2`. Each type of pair has a bias for each head.

    Args:
        channels: Width :math:`d`.
        layers: Number of layers.
        heads: Attention heads :math:`H`.

    Shapes:
        - **input:** nodes :math:`(N, d)`, edges :math:`(2, E)` (not used: they are distances of 1), distances
          :math:`(\sum_g N_g^2,)` and the graph ``batch`` of each node (one graph by default)
        - **output:** nodes :math:`(N, d)`

    Example:
        >>> encoder = SparseTransformer(channels=8, layers=2, heads=2)
        >>> edges, distance = torch.tensor([[0], [1]]), torch.tensor([0, 1, 0, 0])
        >>> encoder(torch.zeros(2, 8), edges, distance).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int, layers: int, heads: int) -> None:
        super().__init__()
        self.bias = nn.Embedding(_PAIR_TYPES, heads)
        self.token = nn.Parameter(torch.empty(1, channels))
        self.layers = nn.ModuleList(SparseGraphormerLayer(channels, heads) for _ in range(layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew, biases and the global node with standard deviation 0.02."""
        reset(self.layers)
        for table in (self.bias.weight, self.token):
            nn.init.normal_(table, std=0.02)

    def forward(self, x: Tensor, edge_index: Tensor, distance: Tensor, batch: Tensor | Blocks | None = None) -> Tensor:
        """Encodes the nodes of one or more graphs."""
        sizes, nodes = Blocks.of(batch, x.size(0)).sizes, x.size(0)
        pair_index, pair_type = sparse_pairs(distance, sizes)
        bias = self.bias(pair_type)
        x = torch.cat((x, self.token.to(x.dtype).expand(len(sizes), -1)))
        for layer in self.layers:
            x = layer(x, pair_index, bias)
        return x[:nodes]


def sparse_pairs(distance: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Pairs of query and key, of shape (2, P), and the type of each; global nodes are numbered after all nodes."""
    device, total = distance.device, sum(sizes)
    near, types, start = [], [], 0
    for matrix in distance_matrices(distance, sizes):
        for number, hop in enumerate(_HOPS, 1):
            pairs = (matrix == hop).nonzero()  # needs one byte per pair of nodes
            near.append(pairs + start)
            types.append(pairs.new_full((len(pairs),), number))
        start += len(matrix)
    (source, target), hops = torch.cat(near).t(), torch.cat(types)
    node = torch.arange(total, device=device)
    graph = total + torch.arange(len(sizes), device=device).repeat_interleave(torch.tensor(sizes, device=device))
    itself = torch.cat((node, graph.unique()))
    parts = [  # query, key, type
        (itself, itself, torch.zeros_like(itself)),
        (source, target, hops),
        (target, source, hops + len(_HOPS)),
        (node, graph, torch.full_like(node, _PAIR_TYPES - 2)),
        (graph, node, torch.full_like(node, _PAIR_TYPES - 1)),
    ]
    query, key, pair_type = (torch.cat(part) for part in zip(*parts, strict=True))
    return torch.stack((query, key)), pair_type
