"""A check that distances are those of the edges."""

from __future__ import annotations

from typing import Final

import numpy as np

STALE: Final = (
    "distance does not fit edge_index: edges were dropped, added or renumbered after AddShortestPathDistance; apply it "
    "again"
)


def distances_fit(distance: np.ndarray, there: np.ndarray, back: np.ndarray) -> bool:
    """Whether the pairs of nodes at distance 1 are those with an edge, in either direction.

    Args:
        distance: Distances of all pairs of nodes.
        there: For each edge the row of its pair of nodes; that of a node with itself does not count.
        back: For each edge the row of the reverse pair.

    Example:
        >>> distances_fit(np.array([0, 1, 1, 0]), np.array([1]), np.array([2]))
        True
        >>> distances_fit(np.array([0, 1, 1, 0]), np.array([0]), np.array([0]))
        False
    """
    near, link = distance == 1, there != back
    joined = np.zeros_like(near)
    joined[there] = link
    joined[back] = link
    return not (near > joined).any() and bool((near[there] | near[back] | ~link).all())
