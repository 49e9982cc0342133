"""The gated graph network of GHN-1 and GHN-2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from ..utils.compat import in_transform
from .blocks import Blocks, distance_matrices, to_numpy

MAX_VIRTUAL_DISTANCE = 50


class Level(NamedTuple):
    """Nodes that are updated at the same time, and the messages that they receive.

    Args:
        nodes: The nodes, of shape :math:`(n,)`.
        rows: Row of each of :math:`m` messages in the table of sent messages.
        slots: Position of each message's receiver in ``nodes``.
        weights: Factor of each message, of shape :math:`(m, 1)`.
    """

    nodes: Tensor
    rows: Tensor
    slots: Tensor
    weights: Tensor


class Messages(NamedTuple):
    """Sender and receiver of each message, its type (0 over edges, 1 over virtual edges) and its factor."""

    sources: np.ndarray
    targets: np.ndarray
    types: np.ndarray
    weights: np.ndarray

    def reversed(self) -> Messages:
        """The same with receivers as senders."""
        return self._replace(sources=self.targets, targets=self.sources)


def longest_paths(edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
    """The length of the longest path to each node; every edge must point from a node to a later one.

    Raises:
        ValueError: If one does not, or names a node that does not exist.
    """
    if edge_index.size and (edge_index.min() < 0 or edge_index.max() >= num_nodes):
        raise ValueError(f"edges expected nodes 0 to {num_nodes - 1}, got {edge_index.min()} to {edge_index.max()}")
    if (edge_index[0] >= edge_index[1]).any():
        raise ValueError(
            "edges must point from a node to a later one, without cycles and self loops; sort the nodes topologically "
            "first, or take an encoder for any graph, such as GraphTransformer or ConvEncoder"
        )
    levels = [0] * num_nodes
    sources, targets = edge_index
    order = np.argsort(targets, kind="stable")
    for source, target in zip(sources[order].tolist(), targets[order].tolist(), strict=True):
        levels[target] = max(levels[target], levels[source] + 1)
    return np.array(levels)


def schedule(levels: np.ndarray, messages: Messages, like: Tensor) -> list[Level]:
    """Groups nodes and messages by level, over all graphs: a node is updated after all nodes on paths to it.

    Args:
        levels: Level of each node, of shape :math:`(N,)`.
        messages: All messages.
        like: A tensor with the type and device of the messages.
    """
    counts = np.bincount(levels)
    nodes = _sorted(levels)
    rank = np.empty_like(nodes)
    rank[nodes] = np.arange(len(nodes))
    arrival = levels[messages.targets]
    order = _sorted(arrival)
    targets = messages.targets[order]
    slots = rank[targets] - (np.cumsum(counts) - counts)[arrival[order]]
    rows = messages.sources[order] * 2 + messages.types[order]
    arrivals = np.bincount(arrival, minlength=len(counts)).tolist()
    parts = [torch.from_numpy(part).to(like.device).split(arrivals) for part in (rows, slots)]
    weights = torch.from_numpy(messages.weights[order, None]).to(like).split(arrivals)
    groups = torch.from_numpy(nodes).to(like.device).split(counts.tolist())
    return [Level(*level) for level in zip(groups, *parts, weights, strict=True)]


def _sorted(levels: np.ndarray) -> np.ndarray:
    """Positions in ascending order of levels; sixteen bits let NumPy sort by radix, ten times faster."""
    return np.argsort(levels.astype(np.int16 if levels.max(initial=0) < 2**15 else np.int64), kind="stable")


def _mlp(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.ReLU())


class GatedGNN(nn.Module):
    r"""The encoder of GHN-2: one update of every node in topological order, then one in reverse order.

    .. math::
        m_v = \sum_{u:\, d(u,v) = 1} \mathrm{MLP}(h_u)
            + \sum_{u:\, 1 \le d(u,v) \le 50} \mathrm{MLP}_{ve}(h_u) / d(u, v), \qquad
        h_v \leftarrow \mathrm{GRU}(m_v, h_v)

    with updated states :math:`h_u`; in the reverse pass the roles of :math:`u` and :math:`v` in :math:`d` are swapped.
    Nodes that do not depend on one another are updated at the same time. Memory grows with the pairs of nodes within
    distance 50, about 100 bytes each: 0.2 GB for a residual network of 10,000 nodes. From arXiv 2110.13100
    (GHN-2) and, without the second sum, arXiv 1810.05749 (GHN-1).

    Args:
        channels: Width :math:`d`.
        virtual_edges: Whether messages also travel over shortest paths (GHN-2) or only over edges (GHN-1).

    Shapes:
        - **input:** nodes :math:`(N, d)` in topological order, edges :math:`(2, E)`, distances
          :math:`(\sum_g N_g^2,)`, which are not needed without virtual edges, and the graph ``batch``
          :math:`(N,)` of each node, or the blocks of the batch (one graph by default)
        - **output:** nodes :math:`(N, d)`

    Raises:
        ValueError: If an edge does not point from a node to a later one, or distances are missing.

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

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for part in self.children():
            reset(part)

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        return f"virtual_edges={self.virtual_mlp is not None}"

    def messages(self, edge_index: np.ndarray, distances: Sequence[Tensor]) -> Messages:
        """All messages along the direction of the edges."""
        sources, targets = edge_index
        direct = Messages(sources, targets, np.zeros_like(sources), np.ones(len(sources)))
        if self.virtual_mlp is None:
            return direct
        start, messages = 0, [direct]
        for distance in distances:
            matrix = to_numpy(distance)
            sources, targets = ((matrix > 0) & (matrix <= MAX_VIRTUAL_DISTANCE)).nonzero()
            weights = np.reciprocal(matrix[sources, targets], dtype=np.float64)
            messages.append(Messages(sources + start, targets + start, np.ones_like(sources), weights))
            start += len(matrix)
        return Messages(*(np.concatenate(parts) for parts in zip(*messages, strict=True)))

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of both MLPs, merged into one that computes both messages of a node."""
        mlps = [self.mlp] if self.virtual_mlp is None else [self.mlp, self.virtual_mlp]
        first, second = ([cast(nn.Linear, mlp[position]) for mlp in mlps] for position in (0, 2))
        return [
            (torch.cat([layer.weight for layer in first]), torch.cat([layer.bias for layer in first])),
            (torch.block_diag(*[layer.weight for layer in second]), torch.cat([layer.bias for layer in second])),
        ]

    def sweep(self, x: Tensor, levels: Sequence[Level]) -> Tensor:
        """Updates every node once, level by level."""
        (weight1, bias1), (weight2, bias2) = self.layers()
        channels = x.size(1)
        if in_transform():  # states are written in place: where vmap maps over weights it must map over states
            x = x + 0 * torch.stack([weight.sum() for weight in self.parameters()]).sum()
        states, table = torch.empty_like(x), x.new_zeros(2 * x.size(0), channels)
        sent = table.view(-1, 2 * channels)[:, : bias2.numel()]
        for nodes, rows, slots, weights in levels:
            received = x.new_zeros(nodes.numel(), channels)
            if rows.numel():
                received.index_add_(0, slots, table.index_select(0, rows) * weights)
            updated = self.gru(received, x.index_select(0, nodes))
            states.index_copy_(0, nodes, updated.to(x.dtype))
            messages = F.linear(F.linear(updated, weight1, bias1).relu_(), weight2, bias2).relu_()
            sent.index_copy_(0, nodes, messages.to(x.dtype))
        return states

    def forward(
        self, x: Tensor, edge_index: Tensor, distance: Tensor | None = None, batch: Tensor | Blocks | None = None
    ) -> Tensor:
        """Encodes the nodes of one or more graphs."""
        num_nodes = x.size(0)
        edges, sizes = to_numpy(edge_index), Blocks.of(batch, num_nodes).sizes
        forward = longest_paths(edges, num_nodes)
        if self.virtual_mlp is not None and distance is None:
            raise ValueError("virtual edges need the distances of all pairs of nodes, got none; see shortest_paths")
        messages = self.messages(edges, [] if distance is None else distance_matrices(distance, sizes))
        x = self.sweep(x, schedule(forward, messages, x))
        backward = longest_paths(num_nodes - 1 - edges[::-1], num_nodes)[::-1]
        return self.sweep(x, schedule(backward, messages.reversed(), x))
