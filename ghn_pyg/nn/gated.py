"""The gated graph network of GHN-1 and GHN-2, and the baseline without a graph."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .ragged import distance_blocks


class Level(NamedTuple):
    """Nodes that can be updated together, and the messages that they receive.

    Args:
        nodes: The nodes, of shape :math:`(n,)`.
        rows: For each of :math:`m` messages its row in the table of sent messages.
        slots: For each message the position of its receiver in ``nodes``.
        weights: Factor of each message, of shape :math:`(m, 1)`.
    """

    nodes: Tensor
    rows: Tensor
    slots: Tensor
    weights: Tensor


def longest_paths(edge_index: Tensor, num_nodes: int) -> Tensor:
    """For each node the length of the longest path to it; every edge points from a node to a later one."""
    levels = [0] * num_nodes
    for target, source in sorted(zip(*reversed(edge_index.tolist()), strict=True)):
        levels[target] = max(levels[target], levels[source] + 1)
    return torch.tensor(levels)


def schedule(levels: Tensor, sources: Tensor, targets: Tensor, weights: Tensor) -> list[Level]:
    """Groups nodes and messages by level: a node is updated after all nodes on paths to it.

    Nodes of different graphs on the same level go together.

    Args:
        levels: Level of each node, of shape :math:`(N,)`.
        sources: Row of each message in the table of sent messages.
        targets: Receiver of each message.
        weights: Factor of each message.
    """
    nodes = levels.argsort(stable=True)
    node_counts = levels.bincount()
    starts = node_counts.cumsum(0) - node_counts
    rank = torch.empty_like(nodes)
    rank[nodes] = torch.arange(nodes.numel(), device=nodes.device)
    order = levels[targets].argsort(stable=True)
    sources, targets, weights = sources[order], targets[order], weights[order, None]
    slots = rank[targets] - starts[levels[targets]]
    message_counts = levels[targets].bincount(minlength=node_counts.numel()).tolist()
    parts = (part.split(message_counts) for part in (sources, slots, weights))
    return [Level(*level) for level in zip(nodes.split(node_counts.tolist()), *parts, strict=True)]


def _mlp(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.ReLU())


class GatedGNN(nn.Module):
    r"""The encoder of GHN-2: one update of every node in topological order, then one in reverse order.

    .. math::
        m_v = \sum_{u:\, d(u,v) = 1} \mathrm{MLP}(h_u) + \sum_{u:\, d(u,v) \ge 1} \mathrm{MLP}_{ve}(h_u) / d(u, v),
        \qquad h_v \leftarrow \mathrm{GRU}(m_v, h_v)

    with updated states :math:`h_u`; in the reverse pass the roles of :math:`u` and :math:`v` in :math:`d` are swapped.
    Nodes that do not depend on one another are updated together. From arXiv 2110.13100 (GHN-2) and, without the
    second sum, arXiv 1810.05749 (GHN-1).

    Args:
        channels: Width :math:`d`.
        virtual_edges: Whether messages travel over shortest paths too (GHN-2) or over edges alone (GHN-1).

    Shapes:
        - **input:** nodes :math:`(\sum_g N_g, d)`, edges :math:`(2, E)`, distances :math:`(\sum_g N_g^2,)` and the
          sizes :math:`N_g` (one graph by default)
        - **output:** nodes :math:`(\sum_g N_g, d)`

    Example:
        >>> encoder = GatedGNN(channels=8)
        >>> edges, distance = torch.tensor([[0], [1]]), torch.tensor([0, 1, 0, 0])
        >>> encoder(torch.zeros(2, 8), edges, distance).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int, virtual_edges: bool = True) -> None:
        super().__init__()
        self.mlp = _mlp(channels, channels // 2 if virtual_edges else channels)
        self.virtual_mlp = _mlp(channels, channels // 2) if virtual_edges else None
        self.gru = nn.GRUCell(channels, channels)

    def sent(self, h: Tensor) -> Tensor:
        """What nodes send, of shape (k, n, d): over edges, and over virtual edges when there are any (k = 2)."""
        direct = self.mlp(h)
        return direct[None] if self.virtual_mlp is None else torch.stack((direct, self.virtual_mlp(h)))

    def messages(self, edge_index: Tensor, distances: Sequence[Tensor], dtype: torch.dtype) -> Messages:
        """Messages along the direction of the edges: sender's row, receiver and factor of each."""
        sources, targets = edge_index
        weights = torch.ones(sources.numel(), dtype=dtype, device=edge_index.device)
        if self.virtual_mlp is None:
            return sources, targets, weights
        pairs = _pairs(distances)
        num_nodes = sum(block.size(0) for block in distances)
        virtual = torch.cat([block[block > 0] for block in distances]).to(dtype).reciprocal()
        return (
            torch.cat((sources, pairs[0] + num_nodes)),
            torch.cat((targets, pairs[1])),
            torch.cat((weights, virtual)),
        )

    def sweep(self, x: Tensor, levels: Sequence[Level]) -> Tensor:
        """Updates every node once, level by level."""
        states = torch.empty_like(x)
        kinds = 1 if self.virtual_mlp is None else 2
        table = x.new_zeros(kinds, *x.shape)
        flat = table.view(-1, x.size(1))
        for level in levels:
            received = x.new_zeros(level.nodes.numel(), x.size(1))
            if level.rows.numel():
                received = received.index_add_(0, level.slots, flat[level.rows] * level.weights)
            updated = self.gru(received, x[level.nodes])
            states.index_copy_(0, level.nodes, updated)
            table.index_copy_(1, level.nodes, self.sent(updated))
        return states

    def forward(self, x: Tensor, edge_index: Tensor, distance: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
        """Encodes the nodes of one or more graphs."""
        num_nodes = x.size(0)
        blocks = distance_blocks(distance, [num_nodes] if sizes is None else sizes)
        levels = longest_paths(edge_index, num_nodes).to(x.device)
        depths = longest_paths(num_nodes - 1 - edge_index.flip(0), num_nodes).flip(0).to(x.device)
        sources, targets, weights = self.messages(edge_index, blocks, x.dtype)
        x = self.sweep(x, schedule(levels, sources, targets, weights))
        # In the reverse pass receivers send: the kind of a message is the offset of its row.
        kind = sources // num_nodes * num_nodes
        return self.sweep(x, schedule(depths, targets + kind, sources - kind, weights))


Messages = tuple[Tensor, Tensor, Tensor]


def _pairs(distances: Sequence[Tensor]) -> Tensor:
    """All pairs of nodes with a path, of shape (2, P), numbered through the batch."""
    starts = itertools.accumulate((block.size(0) for block in distances), initial=0)
    return torch.cat([block.nonzero().t() + start for block, start in zip(distances, starts, strict=False)], dim=1)
