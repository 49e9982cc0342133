"""Shortest-path distances along the direction of the data flow, in graphs whose nodes stand in order."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

NO_PATH = 0
"""Entry of a distance matrix for pairs without a path (and for the diagonal)."""


def shortest_paths(edge_index: Tensor, num_nodes: int, cutoff: int = 50) -> Tensor:
    r"""Shortest-path distances of a directed acyclic graph whose nodes stand in topological order.

    With :math:`P(v)` the predecessors of :math:`v`, :math:`d(u, v) = 1 + \min_{p \in P(v)} d(u, p)`: one vector
    operation over all :math:`u` for each edge, :math:`O(N \cdot E)` bytes in all. Nodes that only follow the one
    before them, of which networks are full, are done a chain at a time.

    Args:
        edge_index: Edges of shape :math:`(2, E)`, each from a node to a later one.
        num_nodes: Number of nodes :math:`N`.
        cutoff: Largest distance that is kept; longer ones become 0.

    Returns:
        Distances of shape :math:`(N, N)` in uint8 (int16 for a ``cutoff`` over 254); 0 where there is no path.

    Raises:
        ValueError: If an edge does not point forward, or ``cutoff`` is not between 1 and 32,766.

    Example:
        >>> shortest_paths(torch.tensor([[0, 1, 0], [1, 2, 2]]), 3)[0].tolist()
        [0, 1, 1]
    """
    if not 1 <= cutoff < np.iinfo(np.int16).max:
        raise ValueError(f"cutoff must be between 1 and {np.iinfo(np.int16).max - 1}, got {cutoff}")
    sources, targets = edge_index.cpu().numpy()
    if (sources >= targets).any():
        raise ValueError("edges must point from a node to a later one; sort the nodes topologically first")
    order = np.argsort(targets, kind="stable")
    bounds = np.searchsorted(targets[order], np.arange(num_nodes + 1)).tolist()
    predecessors = sources[order].tolist()
    entering = [predecessors[first:last] for first, last in itertools.pairwise(bounds)]
    heads = [node for node in range(num_nodes) if entering[node] != [node - 1]]
    chains = list(itertools.pairwise([*heads, num_nodes]))
    # Row v holds d(·, v). Whatever is added to "unreachable" on the way stays above the cutoff and within the type.
    unreachable = max(num_nodes, cutoff + 1)
    rows = np.full((num_nodes, num_nodes), unreachable, np.int16 if unreachable + num_nodes < 1 << 15 else np.int32)
    longest = max((end - head for head, end in chains), default=0)
    steps = np.arange(1, longest + 1, dtype=rows.dtype)[:, None]
    inside = steps - steps.T
    inside[inside < 0] = unreachable
    for head, end in chains:
        length = end - head
        if entering[head]:
            nearest = rows[entering[head][0], :head]
            for node in entering[head][1:]:
                nearest = np.minimum(nearest, rows[node, :head])
            np.add(nearest, steps[:length], out=rows[head:end, :head])
        rows[head:end, head:end] = inside[:length, :length]
    rows[rows > cutoff] = NO_PATH
    return torch.from_numpy(rows.T.astype(np.uint8 if cutoff <= 254 else np.int16, order="C"))
