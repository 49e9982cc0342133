"""Shortest-path distances of many small graphs at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

LARGEST: Final = 64
"""Nodes of the largest graph: each has a bit in a word."""

_NODES: Final = 1 << 14
"""Nodes that are searched together, so that all that a search needs stays in the cache."""

_COPIES: Final = np.uint64(0x8040201008040201)
"""Times a byte: eight copies of it, nine bits apart, so that the last bits of eight bytes are its bits in turn."""

_LAST_BITS: Final = np.uint64(0x0101010101010101)


def distances_together(edges: np.ndarray, sizes: np.ndarray, cutoff: int | None = None) -> np.ndarray:
    r"""Distances of all pairs of nodes of each graph, one graph after another: :math:`(\sum_g N_g^2,)`.

    Each node holds a word whose bits say which nodes of its graph it reaches, and a breadth-first step is one *or* with
    the words of its neighbours, for all graphs at once. Distances come out as a word for each of their binary digits.

    Args:
        edges: Sources and targets, :math:`(2, E)`, as numbers in the batch, both in the same graph; an edge may be
            there more than once.
        sizes: Nodes of each graph, up to 64.
        cutoff: Largest distance that is searched for.

    Returns:
        uint8, with 0 for the node itself and for no path.

    Example:
        >>> distances_together(np.array([[0, 1], [1, 2]]), np.array([3, 1])).tolist()
        [0, 1, 2, 0, 0, 1, 0, 0, 0, 0]
    """
    ends = np.cumsum(sizes)
    key = np.sort(edges[0] << 32 | edges[1])
    key = np.concatenate((key[:1], key[1:][key[1:] != key[:-1]]))
    source, target = key >> 32, key & 0xFFFFFFFF
    steps = LARGEST - 1 if cutoff is None else min(cutoff, LARGEST - 1)
    found = [np.empty(0, np.uint8)]
    for some in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(ends // _NODES)) + 1):
        first, last = (ends[some[0]] - sizes[some[0]], ends[some[-1]]) if some.size else (0, 0)
        here = slice(*np.searchsorted(source, (first, last)))
        found.append(_search(source[here] - first, target[here] - first, sizes[some], steps))
    return np.concatenate(found)


def _search(source: np.ndarray, target: np.ndarray, sizes: np.ndarray, steps: int) -> np.ndarray:
    """The same for a few graphs, with edges in the order of their sources."""
    inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    degree = np.bincount(source, minlength=inside.size)
    order = np.argsort(-degree, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    neighbors = list(_neighbors(place[target], degree, order))
    reached = (np.uint64(1) << (inside ^ 7).astype(np.uint64))[order]  # in each byte the first node is the highest
    digits: list[np.ndarray] = []
    for distance in range(1, steps + 1):
        after = reached.copy()
        for nodes in neighbors:
            after[: nodes.size] |= reached.take(nodes)
        new = after ^ reached
        if not new.any():
            break
        reached = after
        if distance.bit_length() > len(digits):
            digits.append(np.zeros_like(reached))
        for number, digit in enumerate(digits):
            if distance >> number & 1:
                digit |= new
    return _numbers([digit[place] for digit in digits], sizes)


def _neighbors(targets: np.ndarray, degree: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """The first neighbour of each node that has one, then the second of each that has two, and so on.

    Nodes stand by their degree, so that those that still have a neighbour are always the first ones.
    """
    start, degree = (np.cumsum(degree) - degree)[order], degree[order]
    for number in range(int(degree.max(initial=0))):
        yield targets[start[: np.count_nonzero(degree > number)] + number]


def _numbers(digits: list[np.ndarray], sizes: np.ndarray) -> np.ndarray:
    """From words, one for each binary digit, the numbers of the pairs."""
    octets = -(-int(sizes.max(initial=0)) // 8)
    found = np.zeros((int(sizes.sum()), octets), "<u8")
    for number, digit in enumerate(digits):
        bits = digit.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :octets].astype("<u8")
        bits *= _COPIES
        bits >>= np.uint64(7)
        bits &= _LAST_BITS
        bits <<= np.uint64(number)
        found |= bits
    return found.view(np.uint8)[np.arange(8 * octets) < np.repeat(sizes, sizes)[:, None]]
