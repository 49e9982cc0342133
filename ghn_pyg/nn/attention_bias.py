"""Attention biases from shortest-path distances."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from ..utils.compat import has_plain_values
from ..utils.memory_guard import check_memory
from .attention import BIAS, SPARSE_INSTEAD, TableBias
from .blocks import Blocks
from .edge_paths import check_distances

MAX_DISTANCE: Final = 254


def sinusoids(rows: int, channels: int) -> Tensor:
    """Sinusoidal position embeddings of shape (rows, channels), the first row zero."""
    position = torch.arange(rows)[:, None]
    rate = torch.exp(torch.arange(0, channels, 2) * (-torch.log(torch.tensor(10_000.0)) / channels))
    table = torch.stack((torch.sin(position * rate), torch.cos(position * rate)), dim=2).flatten(1)[:, :channels]
    table[0] = 0
    return table


class DistanceEmbedding(nn.Embedding):
    """A trainable table of embeddings, initialized with :func:`sinusoids`."""

    def reset_parameters(self) -> None:
        """Resets all embeddings to sinusoids."""
        with torch.no_grad():
            self.weight.copy_(sinusoids(*self.weight.shape))


def _blocks_of_distances(
    distance: Tensor, batch: Tensor | Blocks, batch_size: int | None, bytes_per_pair: int
) -> Blocks:
    """The blocks of the batch, after a check of the distances and of the memory for their columns."""
    blocks = Blocks.of_batch(batch, batch_size)
    if not isinstance(distance, Tensor):
        raise TypeError(f"distance expected a tensor, as AddShortestPathDistance adds it, got {distance!r:.40}")
    if distance.is_floating_point() or distance.dtype == torch.bool:
        raise ValueError(f"distance expected integers, 0 for no path, got {distance.dtype}")
    readable = distance.device.type == "cpu" and has_plain_values(distance)
    if readable and distance.dtype.is_signed and distance.numel() and distance.min() < 0:
        raise ValueError(f"distance expected 0 for no path, got {int(distance.min())}")
    check_memory(bytes_per_pair * distance.numel(), BIAS, SPARSE_INSTEAD, distance.device)
    return blocks


class DistanceBias(nn.Module):
    r"""GHN-3's bias for every ordered pair of nodes of a directed acyclic graph, from their two distances.

    The feature of the pair (query :math:`u`, key :math:`v`) is :math:`e_{d(u,v)} \Vert e_{d(v,u)}`, mapped to a bias
    per head by :math:`W_2\, \mathrm{ReLU}(W_1 \cdot + b_1) + b_2`. In a directed acyclic graph one of the two distances
    is 0, so there are at most :math:`2 \cdot 254 + 1` different features: their biases are computed once, and pairs
    look them up by the signed distance :math:`d(u, v) - d(v, u)`. Memory is two bytes per pair of nodes, five while
    they are computed (0.5 GB for 10,000 nodes). From GHN-3 (arXiv 2303.04143), after Graphormer (arXiv 2106.05234).

    Args:
        channels: Width :math:`d` of the embeddings.
        heads: Number of attention heads :math:`H`.

    Shapes:
        - **input:** distances :math:`(\sum_g N_g^2,)` of acyclic graphs, 0 for no path, larger ones count as 254; and
          the ``batch`` :math:`(N,)` of the nodes, or its blocks
        - **output:** a :class:`TableBias`

    Raises:
        ValueError: If distances are not integers from 0 on.
        MemoryError: If the pairs do not fit into the free memory.

    Example:
        >>> bias = DistanceBias(channels=8, heads=2)(torch.tensor([0, 1, 0, 0]), Blocks.of(None, 2))
        >>> [part.shape for part in bias.dense()]
        [torch.Size([1, 2, 2, 2])]
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        # Row 0 is the padding row of published checkpoints; distance k has row k + 2.
        self.distance = DistanceEmbedding(MAX_DISTANCE + 3, channels)
        self.mlp = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, heads))

    def reset_parameters(self) -> None:
        """Resets the embeddings to sinusoids and draws the other weights anew."""
        for part in (self.distance, self.mlp[0], self.mlp[2]):
            part.reset_parameters()  # type: ignore[operator]

    def table(self) -> Tensor:
        """The bias of each signed distance from -254 to 254, of shape (heads, 509)."""
        rows = self.distance.weight[2:]
        none = rows[:1].expand(MAX_DISTANCE, -1)
        forward = torch.cat((none, rows))
        backward = torch.cat((rows.flip(0), none))
        return self.mlp(torch.cat((forward, backward), dim=1)).t()

    def forward(self, distance: Tensor, batch: Tensor | Blocks, batch_size: int | None = None) -> TableBias:
        """Computes the biases of a batch."""
        blocks = _blocks_of_distances(distance, batch, batch_size, bytes_per_pair=5)
        return TableBias(self.table(), [signed_distance(part) for part in blocks.split_pairs(distance)], blocks)


def signed_distance(distance: Tensor) -> Tensor:
    """The signed distance :math:`d(u, v) - d(v, u)` plus 254, a column of the table, for blocks (G, N, N)."""
    clamped = distance.clamp(max=MAX_DISTANCE).to(torch.int16)
    return (clamped - clamped.mT).add_(MAX_DISTANCE)


class SpatialEncoding(nn.Module):
    r"""Graphormer's bias for every pair of nodes: a trained number :math:`b_{\phi(u, v)}` per head and distance.

    With ``directed`` it is :math:`b_{\phi(u, v)} + b'_{\phi(v, u)}`, which distinguishes nodes before and after a node.
    Pairs without a path share a number, and so do all distances larger than ``max_distance``. Distances that a
    transform left out by its cutoff count as pairs without a path. Where all nodes have equal features a bias changes
    nothing, see :class:`~ghn_pyg.nn.GraphormerLayer`. From "Do Transformers Really Perform Bad for Graph
    Representation?" (arXiv 2106.05234).

    Args:
        heads: Number of attention heads :math:`H`.
        max_distance: Largest distance with a number of its own.
        directed: Whether distances in both directions count.

    Shapes:
        - **input:** distances :math:`(\sum_g N_g^2,)` as :class:`~ghn_pyg.transforms.AddShortestPathDistance` adds
          them, 0 for the node itself or no path; and the ``batch`` :math:`(N,)` of the nodes, or its blocks; give
          ``edge_index`` :math:`(2, E)` too, and distances of other edges are refused
        - **output:** a :class:`TableBias`: two bytes per pair of nodes (four with more than 32,766 columns)

    Raises:
        ValueError: If distances are not integers from 0 on.
        MemoryError: If the pairs do not fit into the free memory.

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
        self.column_type = torch.int16 if columns < torch.iinfo(torch.int16).max else torch.int32
        # Rows: distances 0 to the largest, then longer ones, then no path.
        self.bias = nn.Embedding(max_distance + 3, heads)
        self.back = nn.Embedding(max_distance + 3, heads) if directed else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all numbers anew, with standard deviation 0.02."""
        for table in (self.bias, self.back):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        return f"max_distance={self.max_distance}, directed={self.back is not None}"

    def _rows(self, distance: Tensor) -> Tensor:
        """The row of each distance of a block (G, n, n)."""
        largest = min(self.max_distance + 1, torch.iinfo(distance.dtype).max)  # GPUs refuse to clamp to more
        rows = distance.clamp(max=largest).to(self.column_type)
        no_path = (rows == 0).logical_and_(~torch.eye(rows.size(-1), dtype=torch.bool, device=rows.device))
        return rows.masked_fill_(no_path, self.max_distance + 2)

    def forward(
        self,
        distance: Tensor,
        batch: Tensor | Blocks,
        batch_size: int | None = None,
        edge_index: Tensor | None = None,
    ) -> TableBias:
        """Computes the biases of a batch."""
        blocks = _blocks_of_distances(distance, batch, batch_size, 4 * self.column_type.itemsize)
        if edge_index is not None:
            check_distances(distance, edge_index, blocks)
        columns = [self._rows(part) for part in blocks.split_pairs(distance)]
        table = self.bias.weight
        if self.back is not None:
            rows = len(table)
            table = (table[:, None] + self.back.weight).flatten(0, 1)
            columns = [column * rows + column.mT for column in columns]
        return TableBias(table.t(), columns, blocks)
