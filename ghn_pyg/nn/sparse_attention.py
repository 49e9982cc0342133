"""Attention over given pairs of nodes, for graphs that are too large for all pairs."""

from __future__ import annotations

from typing import Final, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.inits import reset
from torch_geometric.utils import softmax

from .blocks import Blocks, distance_matrices
from .transformer_layer import LayerOptions, TransformerLayer

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
        pair_channels: Width of features of pairs, if there are any; keys are multiplied by :math:`W_E e_{uv}`
            (Exphormer, arXiv 2303.06147).
        options: Options of :class:`~ghn_pyg.nn.TransformerLayer`.

    Shapes:
        - **input:** nodes :math:`(N, d)`, pairs :math:`(2, P)` of a query and a key, such as ``pair_index`` of
          :class:`~ghn_pyg.transforms.AddShortestPathPairs`, which has no pair of a node with itself, and
          their biases :math:`(P, H)` and features (none by default); the ``batch`` of nodes is for norms and dropout of
          graphs
        - **output:** nodes :math:`(N, d)`; a node without pairs attends to nothing

    Raises:
        ValueError: If ``heads`` does not divide ``channels``.

    Example:
        >>> layer = SparseGraphormerLayer(channels=8, heads=2)
        >>> layer(torch.zeros(3, 8), torch.tensor([[0, 1, 2], [0, 0, 2]])).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        dropout: float = 0.0,
        *,
        pair_channels: int | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(channels, heads, dropout, **options)
        self.pair = None if pair_channels is None else nn.Linear(pair_channels, channels)

    def attend(self, x: Tensor, pair_index: Tensor, bias: Tensor | None, pair_attr: Tensor | None = None) -> Tensor:
        """Attention over the pairs."""
        query, key, value = self.heads_of(x)
        queries, keys = pair_index
        product = query.index_select(0, queries) * key.index_select(0, keys)
        if self.pair is not None:
            product = product * self.pair(pair_attr).view(product.shape)
        score = product.sum(-1) / query.size(-1) ** 0.5
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
        pair_attr: Tensor | None = None,
    ) -> Tensor:
        """Applies the layer."""
        if (pair_attr is None) != (self.pair is None):
            raise ValueError("pair_attr and pair_channels belong together; give both or none")
        return self.update(x, Blocks.of(batch, x.size(0)), lambda x: self.attend(x, pair_index, bias, pair_attr))


class SparseTransformer(nn.Module):
    r"""An encoder with sparse attention in the style of Exphormer (arXiv 2303.06147).

    A node attends to itself, to the nodes at distances 1, 2, 4, …, 32 in both directions, and to a global node of its
    graph, which attends to all nodes. Exphormer's far neighbors come from a random expander graph, which depends
    on the order of nodes (see :class:`ExpanderTransformer`); these do not. The number of pairs grows like
    :math:`N \log N` in deep graphs; only the distances, a byte per pair, grow like :math:`N^2`. Each type of pair has
    a bias for each head.

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


class ExpanderTransformer(nn.Module):
    r"""Exphormer (arXiv 2303.06147): attention along edges, along a random regular graph, and to virtual nodes.

    .. math::
        x_u \leftarrow x_u + W_O \sum_v \mathrm{softmax}_v\left(
        (W_E e_{uv} \odot W_K x_v)^\top W_Q x_u / \sqrt{d/H}\right) W_V x_v

    over the node itself, its edges in both directions, its neighbors in the expander and the virtual nodes of its
    graph, which attend to all its nodes. The feature :math:`e_{uv}` is an embedding of the type of the pair, plus that
    of the edge. Time and memory grow with :math:`N + E`: there are no distances.

    Args:
        channels: Width :math:`d`.
        layers: Number of layers.
        heads: Attention heads :math:`H`.
        virtual_nodes: Virtual nodes of each graph.
        edge_channels: Width of edge features, if there are any.
        dropout: Dropout probability of updates, and of attention weights by default.
        options: Options of :class:`~ghn_pyg.nn.TransformerLayer`.

    Shapes:
        - **input:** nodes :math:`(N, d)`, edges :math:`(2, E)`, expander edges :math:`(2, P)` as
          :class:`~ghn_pyg.transforms.AddExpanderEdges` adds them, the graph ``batch`` of each node (one graph by
          default) and edge features
        - **output:** nodes :math:`(N, d)`

    Example:
        >>> encoder, edges = ExpanderTransformer(channels=8, layers=2, heads=2), torch.tensor([[0], [1]])
        >>> encoder(torch.zeros(3, 8), edges, torch.tensor([[0, 2], [2, 0]])).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        channels: int,
        layers: int,
        heads: int,
        virtual_nodes: int = 1,
        edge_channels: int | None = None,
        dropout: float = 0.0,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__()
        if virtual_nodes < 0:
            raise ValueError(f"virtual_nodes must be at least 0, got {virtual_nodes}")
        self.types = nn.Embedding(4 + 2 * virtual_nodes, channels)
        self.edges = None if edge_channels is None else nn.Linear(edge_channels, channels)
        self.virtual = nn.Parameter(torch.empty(virtual_nodes, channels))
        self.layers = nn.ModuleList(
            SparseGraphormerLayer(channels, heads, dropout, pair_channels=channels, **options) for _ in range(layers)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        for part in self.children():
            reset(part)
        nn.init.normal_(self.virtual, std=0.02)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        expander_index: Tensor,
        batch: Tensor | Blocks | None = None,
        edge_attr: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Encodes the nodes of one or more graphs."""
        blocks, nodes = Blocks.of(batch, x.size(0), batch_size), x.size(0)
        if (edge_attr is None) != (self.edges is None):
            raise ValueError("edge_attr and edge_channels belong together; give both or none")
        graph, node = blocks.vector(x.device), torch.arange(nodes, device=x.device)
        parts = [torch.stack((node, node)), edge_index.flip(0), edge_index, expander_index]  # query, key
        for number in range(len(self.virtual)):
            virtual = nodes + number * blocks.batch_size + graph
            parts += [torch.stack((node, virtual)), torch.stack((virtual, node))]
        sizes = torch.tensor([part.size(1) for part in parts], device=x.device)
        attr = self.types.weight.repeat_interleave(sizes, dim=0, output_size=sum(part.size(1) for part in parts))
        if self.edges is not None:
            added = self.edges(edge_attr)
            attr = attr + F.pad(torch.cat((added, added)), (0, 0, nodes, attr.size(0) - nodes - 2 * added.size(0)))
        pair_index, virtual_graph = torch.cat(parts, 1), torch.arange(blocks.batch_size, device=x.device)
        x = torch.cat((x, self.virtual.to(x.dtype).repeat_interleave(blocks.batch_size, dim=0)))
        order = torch.cat((graph, *[virtual_graph] * len(self.virtual))).argsort(stable=True)
        place = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=x.device))
        counts = blocks.counts.to(x.device) + len(self.virtual)
        x, pair_index = x.index_select(0, order), place[pair_index]
        sorted_blocks = Blocks.of(virtual_graph.repeat_interleave(counts, output_size=len(order)), len(order))
        for layer in self.layers:
            x = layer(x, pair_index, None, sorted_blocks, attr)
        return x.index_select(0, place[:nodes])
