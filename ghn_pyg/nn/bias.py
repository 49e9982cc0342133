"""Attention biases from the structure of graphs: shortest-path distances, and the edges along shortest paths."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import TableBias
from .lookup import is_transformed
from .memory import check_room
from .ragged import Blocks, to_numpy

MAX_DISTANCE: Final = 254


def sinusoids(rows: int, channels: int) -> Tensor:
    """Sinusoidal position embeddings of shape (rows, channels), the first row zero."""
    position = torch.arange(rows)[:, None]
    rate = torch.exp(torch.arange(0, channels, 2) * (-torch.log(torch.tensor(10_000.0)) / channels))
    table = torch.stack((torch.sin(position * rate), torch.cos(position * rate)), dim=2).flatten(1)[:, :channels]
    table[0] = 0
    return table


class DistanceEmbedding(nn.Embedding):
    """A trainable table of embeddings that starts as :func:`sinusoids`."""

    def reset_parameters(self) -> None:
        """Sets all embeddings back to sinusoids."""
        with torch.no_grad():
            self.weight.copy_(sinusoids(*self.weight.shape))


class DistanceBias(nn.Module):
    r"""GHN-3's bias for every ordered pair of nodes of a directed acyclic graph, from their two distances.

    The feature of the pair (query :math:`u`, key :math:`v`) is :math:`e_{d(u,v)} \Vert e_{d(v,u)}`, sent through
    :math:`W_2\, \mathrm{ReLU}(W_1 \cdot + b_1) + b_2`. In a directed acyclic graph one of the two distances is 0, so
    there are no more than :math:`2 \cdot 254 + 1` different features: they are computed once, and pairs look theirs
    up by the signed distance :math:`d(u, v) - d(v, u)`. Nothing of size :math:`N^2 d` is ever held: two bytes for
    each pair, and five while they are computed (0.5 GB for 10,000 nodes).
    From GHN-3 (arXiv 2303.04143), after Graphormer (arXiv 2106.05234).

    Args:
        channels: Width :math:`d` of the embeddings.
        heads: Number of attention heads :math:`H`.

    Shapes:
        - **input:** distances :math:`(\sum_g N_g^2,)` of acyclic graphs, 0 for none, larger ones count as 254; and the
          ``batch`` :math:`(N,)` of the nodes, or its blocks
        - **output:** a table, and for each block of the batch the columns of its pairs

    Example:
        >>> bias = DistanceBias(channels=8, heads=2)(torch.tensor([0, 1, 0, 0]), Blocks.of(None, 2))
        >>> [part.shape for part in bias.dense()]
        [torch.Size([1, 2, 2, 2])]
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        # Row 0 is the original padding row; a distance has the row two after it.
        self.distance = DistanceEmbedding(MAX_DISTANCE + 3, channels)
        self.mlp = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, heads))

    def table(self) -> Tensor:
        """The bias of each signed distance from -254 to 254, of shape (heads, 509)."""
        rows = self.distance.weight[2:]
        none = rows[:1].expand(MAX_DISTANCE, -1)
        forward = torch.cat((none, rows))
        backward = torch.cat((rows.flip(0), none))
        return self.mlp(torch.cat((forward, backward), dim=1)).t()

    def forward(self, distance: Tensor, batch: Tensor | Blocks) -> TableBias:
        """The biases of a batch.

        Raises:
            ValueError: If distances are no whole numbers from 0 on.
            MemoryError: If there is no room for the pairs.
        """
        blocks = Blocks.known(batch)
        _check_distances(distance)
        check_room(5 * distance.numel(), distance.numel(), distance.device)
        positions = [signed_distance(part) for part in blocks.split_pairs(distance)]
        return TableBias(self.table(), positions, blocks)


def _check_distances(distance: Tensor) -> None:
    if not isinstance(distance, Tensor):
        raise TypeError(f"distances expected a tensor, as AddShortestPathDistance adds one, got {distance!r:.40}")
    if distance.is_floating_point() or distance.dtype == torch.bool:
        raise ValueError(f"distances expected whole numbers, 0 for no path, got {distance.dtype}")
    readable = distance.device.type == "cpu" and not torch.compiler.is_compiling() and not is_transformed(distance)
    if readable and distance.dtype.is_signed and distance.numel() and distance.min() < 0:
        raise ValueError(f"distances expected 0 for no path, got {int(distance.min())}")


def signed_distance(distance: Tensor) -> Tensor:
    """The signed distance :math:`d(u, v) - d(v, u)` plus 254, a column of the table, for blocks (G, N, N)."""
    clamped = distance.clamp(max=MAX_DISTANCE).to(torch.int16)
    return (clamped - clamped.mT).add_(MAX_DISTANCE)


class SpatialEncoding(nn.Module):
    r"""Graphormer's bias for every pair of nodes, a number :math:`b_{\phi(u, v)}` per head and distance.

    With ``directed`` it is :math:`b_{\phi(u, v)} + b'_{\phi(v, u)}`, so that a node tells those before it from those
    behind it. Pairs without a path share a number, and so do all distances larger than ``max_distance``; those that the
    cutoff of a transform left out count as pairs without a path. From "Do Transformers Really Perform Bad for Graph
    Representation?" (arXiv 2106.05234).

    Args:
        heads: Number of attention heads :math:`H`.
        max_distance: Largest distance that has a number of its own.
        directed: Whether distances in both directions count.

    Shapes:
        - **input:** distances :math:`(\sum_g N_g^2,)` as :class:`~ghn_pyg.transforms.AddShortestPathDistance` gives
          them, 0 for the node itself or no path; and the ``batch`` :math:`(N,)` of the nodes, or its blocks
        - **output:** a table, and for each block of the batch the columns of its pairs, two bytes each (four with more
          than 32,766 columns)

    Raises:
        ValueError: If distances are no whole numbers from 0 on.
        MemoryError: If there is no room for the pairs.

    Example:
        >>> spatial = SpatialEncoding(heads=2)
        >>> [part.shape for part in spatial(torch.tensor([0, 1, 1, 0]), Blocks.of(None, 2)).dense()]
        [torch.Size([1, 2, 2, 2])]
    """

    def __init__(self, heads: int, max_distance: int = 20, directed: bool = False) -> None:
        super().__init__()
        if heads < 1:
            raise ValueError(f"heads must be at least 1, got {heads}")
        if max_distance < 1:
            raise ValueError(f"max_distance must be at least 1, got {max_distance}")
        self.max_distance = max_distance
        columns = (max_distance + 3) ** (2 if directed else 1)
        self.kind = torch.int16 if columns < torch.iinfo(torch.int16).max else torch.int32
        # Distances 0 to the largest, then longer ones, then none.
        self.bias = nn.Embedding(max_distance + 3, heads)
        self.back = nn.Embedding(max_distance + 3, heads) if directed else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws small numbers."""
        for table in (self.bias, self.back):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    def rows(self, distance: Tensor) -> Tensor:
        """For distances (G, n, n) of a block the row of each."""
        largest = min(self.max_distance + 1, torch.iinfo(distance.dtype).max)  # GPUs refuse to clamp to more
        rows = distance.clamp(max=largest).to(self.kind)
        none = (rows == 0).logical_and_(~torch.eye(rows.size(-1), dtype=torch.bool, device=rows.device))
        return rows.masked_fill_(none, self.max_distance + 2)

    def forward(self, distance: Tensor, batch: Tensor | Blocks) -> TableBias:
        """The biases of a batch."""
        blocks = Blocks.known(batch)
        _check_distances(distance)
        check_room(4 * self.kind.itemsize * distance.numel(), distance.numel(), distance.device)
        positions = [self.rows(part) for part in blocks.split_pairs(distance)]
        table = self.bias.weight
        if self.back is not None:
            rows = len(table)
            table = (table[:, None] + self.back.weight).flatten(0, 1)
            positions = [position * rows + position.mT for position in positions]
        return TableBias(table.t(), positions, blocks)


class EdgePathEncoding(nn.Module):
    r"""Graphormer's edge encoding: a bias from the features of the edges along a shortest path.

    .. math::
        c_{uv} = \frac{1}{L} \sum_{n=1}^{L} x_{e_n}^\top w_n \qquad \text{for the path } (e_1, …, e_L)
        \text{ from } u \text{ to } v,

    with weights :math:`w_n` for each head and place on the path (arXiv 2106.05234). What an edge adds at each of the
    places is computed once and summed up for pairs; no features are gathered.

    Args:
        channels: Width of the edge features.
        heads: Number of attention heads :math:`H`.
        max_hops: Edges of a path that count, from its start.

    Shapes:
        - **input:** edges :math:`(2, E)`, features :math:`(E, \text{channels})`, paths
          :math:`(\sum_g N_g^2, L)` as :class:`~ghn_pyg.transforms.AddShortestPathEdges` gives them (positions among
          the edges of the graph, -1 behind the end) and the ``batch`` :math:`(N,)` of the nodes, or its blocks
        - **output:** for each block the biases :math:`(G, H, n, n)`

    Example:
        >>> edges, path = torch.tensor([[0], [1]]), torch.tensor([[-1], [0], [-1], [-1]])
        >>> encoding = EdgePathEncoding(channels=3, heads=2, max_hops=1)
        >>> [part.shape for part in encoding(edges, torch.ones(1, 3), path, Blocks.of(None, 2))]
        [torch.Size([1, 2, 2, 2])]
    """

    def __init__(self, channels: int, heads: int, max_hops: int = 5) -> None:
        super().__init__()
        if max_hops < 1:
            raise ValueError(f"max_hops must be at least 1, got {max_hops}")
        self.max_hops = max_hops
        self.heads = heads
        self.hops = nn.Linear(channels, max_hops * heads, bias=False)

    def forward(self, edge_index: Tensor, edge_attr: Tensor, path: Tensor, batch: Tensor | Blocks) -> list[Tensor]:
        """The biases of a batch."""
        blocks = Blocks.known(batch)
        if edge_attr.size(0) != edge_index.size(1):
            raise ValueError(f"edge_attr expected a row for each of {edge_index.size(1)} edges, got {len(edge_attr)}")
        hops = min(self.max_hops, path.size(1))
        rows = edge_attr.size(0) * self.max_hops
        added = self.hops(edge_attr).view(rows, self.heads)
        none = added.new_zeros(1, self.heads)
        path = path[:, :hops].long()
        edge, hop = path + first_edges(edge_index, blocks)[:, None], torch.arange(hops, device=path.device)
        place = (edge * self.max_hops + hop).masked_fill(path < 0, rows)
        return blocks.biases(F.embedding_bag(place, torch.cat((added, none)), mode="mean", padding_idx=rows))


def first_edges(edge_index: Tensor, blocks: Blocks) -> Tensor:
    r"""For every pair of nodes the number of edges of the graphs before its graph, :math:`(\sum_g N_g^2,)`."""
    sizes = torch.tensor(blocks.sizes)
    ends = torch.from_numpy(to_numpy(edge_index[0]))
    counts = torch.bincount(torch.repeat_interleave(sizes)[ends], minlength=len(sizes))
    return torch.repeat_interleave(counts.cumsum(0) - counts, sizes**2).to(edge_index.device)
