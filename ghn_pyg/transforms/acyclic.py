"""Shortest-path distances along the direction of the data flow, in graphs whose nodes stand in order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..utils.memory_guard import check_room
from .checks import check_ends

NO_PATH = 0
"""Entry of a distance matrix for pairs without a path (and for the diagonal)."""

_LONGEST_CHAIN: Final = 256
_ROWS: Final = 256


def shortest_paths(edge_index: Tensor, num_nodes: int, cutoff: int = 50) -> Tensor:
    r"""Shortest-path distances of a directed acyclic graph whose nodes stand in topological order.

    With :math:`P(v)` the predecessors of :math:`v`, :math:`d(u, v) = 1 + \min_{p \in P(v)} d(u, p)`: one vector
    operation over all :math:`u` for each edge, :math:`O(N \cdot E)` bytes in all. Nodes that only follow the one
    before them, of which networks are full, are done a chain at a time. The result takes a byte for each pair, 100 MB
    for 10,000 nodes, and twice as much while it is computed (for a ``cutoff`` of up to 254).

    Args:
        edge_index: Edges of shape :math:`(2, E)`, each from a node to a later one.
        num_nodes: Number of nodes :math:`N`.
        cutoff: Largest distance that is kept; longer ones become 0.

    Returns:
        Distances of shape :math:`(N, N)` in uint8 (int16 for a ``cutoff`` over 254); 0 where there is no path.

    Raises:
        ValueError: If an edge names a node that is not there or does not point forward, or ``cutoff`` is not between 1
            and 32,766.
        MemoryError: If there is no room for all pairs.

    Example:
        >>> shortest_paths(torch.tensor([[0, 1, 0], [1, 2, 2]]), 3)[0].tolist()
        [0, 1, 1]
    """
    if not 1 <= cutoff < np.iinfo(np.int16).max:
        raise ValueError(f"cutoff must be between 1 and {np.iinfo(np.int16).max - 1}, got {cutoff}")
    sources, targets = edge_index.cpu().numpy()
    check_ends(sources.min(initial=0), targets.max(initial=-1), num_nodes)
    if (sources >= targets).any():
        raise ValueError("edges must point from a node to a later one; sort the nodes topologically first")
    order = np.argsort(targets, kind="stable")
    bounds = np.searchsorted(targets[order], np.arange(num_nodes + 1)).tolist()
    predecessors = sources[order].tolist()
    entering = [predecessors[first:last] for first, last in itertools.pairwise(bounds)]
    chains = list(_chains(entering, min(cutoff, _LONGEST_CHAIN)))
    # Row v holds d(·, v), and cutoff + 1 for all that is longer.
    far = cutoff + 1
    kind = np.uint8 if cutoff <= 254 else np.int16
    check_room(2 * num_nodes**2 * np.dtype(kind).itemsize, f"the distances of all pairs of {num_nodes:,} nodes")
    rows = np.full((num_nodes, num_nodes), far, kind)
    longest = max((end - head for head, end in chains), default=0)
    steps = np.arange(1, longest + 1)[:, None]
    inside = np.where(steps < steps.T, far, steps - steps.T).astype(kind)
    steps, room = steps.astype(kind), (far - steps).astype(kind)
    for head, end in chains:
        length = end - head
        if entering[head]:
            nearest = rows[entering[head][0], :head]
            for node in entering[head][1:]:
                nearest = np.minimum(nearest, rows[node, :head])
            before = rows[head:end, :head]
            np.minimum(nearest, room[:length], out=before)
            np.add(before, steps[:length], out=before)
        rows[head:end, head:end] = inside[:length, :length]
    return torch.from_numpy(_turned(rows, far))


def _chains(entering: Sequence[Sequence[int]], longest: int) -> Iterator[tuple[int, int]]:
    """Ranges of nodes each of which, but for the first, only follows the one before it."""
    head = 0
    for node in range(1, len(entering) + 1):
        if node == len(entering) or node - head == longest or entering[node] != [node - 1]:
            yield head, node
            head = node


def _turned(rows: np.ndarray, far: int) -> np.ndarray:
    """The transpose, with no path where it is too far; some rows after another, which need little memory."""
    turned = np.empty_like(rows)
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        some[some == far] = NO_PATH
        turned[:, start : start + _ROWS] = some.T
    return turned
