"""Shortest-path distances of all pairs of nodes, of many graphs at once, by breadth-first search on bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from .frontier_bfs import Neighbors, fill_distances

_WORDS: Final = 16
"""Words of 64 bits that a node holds at most: larger graphs are searched for 1,024 targets after another."""

_WORDS_AT_A_TIME: Final = 1 << 14
"""Words of all nodes that are searched together: what a search needs stays in the cache."""

_MAX_STEPS: Final = 255
"""Distances have eight binary digits. Deeper graphs are searched along their frontier, which is faster for them."""

_COPIES: Final = np.uint64(0x8040201008040201)
"""Times a byte: eight copies of it, nine bits apart, so that the last bits of eight bytes are its bits in turn."""

_LAST_BITS: Final = np.uint64(0x0101010101010101)


def all_pairs(
    source: np.ndarray, target: np.ndarray, graph: np.ndarray, matrices: Sequence[np.ndarray], cutoff: int | None
) -> None:
    r"""Writes the distances of all pairs of nodes of each graph into a matrix of zeros.

    Multi-source breadth-first search (doi:10.14778/2735496.2735507): the bits of a node's words are the nodes of its
    graph that it reaches, and a step is one *or* with the words of its neighbors, for all graphs at once. Each binary
    digit of the distances is a word too. Time grows with :math:`N (N + E) / 64` times the largest distance; graphs
    with distances over 255 are passed on to :func:`~ghn_pyg.transforms.frontier_bfs.fill_distances`.

    Args:
        source: Source of each edge, :math:`(E,)`, numbered inside its graph; edges may be repeated.
        target: Target of each edge.
        graph: Graph of each edge.
        matrices: For each graph zeros :math:`(N, N)` that are filled, uint8 or int16.
        cutoff: Largest distance that is written.

    Example:
        >>> matrix = np.zeros((3, 3), np.uint8)
        >>> all_pairs(np.array([0, 1]), np.array([1, 2]), np.array([0, 0]), [matrix], cutoff=None)
        >>> matrix.tolist()
        [[0, 1, 2], [0, 0, 1], [0, 0, 0]]
    """
    if not matrices:
        return
    sizes = np.array([len(matrix) for matrix in matrices])
    words = np.minimum(-(-sizes // 64), _WORDS)
    order = np.argsort(words, kind="stable")  # graphs whose nodes hold as many words are searched together
    ends = np.cumsum(sizes[order])
    first = np.empty_like(ends)
    first[order] = ends - sizes[order]
    edges = np.sort((source + first[graph]) << 32 | (target + first[graph]))
    edges = np.concatenate((edges[:1], edges[1:][edges[1:] != edges[:-1]]))
    source, target = edges >> 32, edges & 0xFFFFFFFF
    cuts = np.flatnonzero(np.diff(words[order]) | np.diff(ends * words[order] // _WORDS_AT_A_TIME)) + 1
    for graphs in np.split(order, cuts):
        start, stop = first[graphs[0]], first[graphs[-1]] + sizes[graphs[-1]]
        inside = slice(*np.searchsorted(source, (start, stop)))
        _search(source[inside] - start, target[inside] - start, [matrices[graph] for graph in graphs.tolist()], cutoff)


def _search(source: np.ndarray, target: np.ndarray, matrices: Sequence[np.ndarray], cutoff: int | None) -> None:
    """The same for a few graphs whose nodes are numbered one after another, with edges sorted by source."""
    sizes = np.array([len(matrix) for matrix in matrices])
    ends = np.cumsum(sizes)
    starts, largest = ends - sizes, int(sizes.max())
    number = np.arange(ends[-1]) - np.repeat(starts, sizes)  # of each node inside its graph
    # Nodes sorted by degree: those with a k-th neighbor are always the first ones.
    degree = np.bincount(source, minlength=ends[-1])
    order = np.argsort(-degree, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    neighbors = list(_kth_neighbors(rank[target], degree, order))
    for column in range(0, largest, 64 * _WORDS):
        width = min(64 * _WORDS, largest - column)
        reached = np.zeros((order.size, -(-width // 64)), np.uint64)
        node = np.flatnonzero((number >= column) & (number < column + width))
        bit = number[node] - column
        # In each byte the first node is the highest bit.
        reached[rank[node], bit >> 6] = np.uint64(1) << ((bit & 63) ^ 7).astype(np.uint64)
        digits = _reach(reached, neighbors, cutoff)
        if digits is None:
            for matrix, start, stop in zip(matrices, starts, ends, strict=True):
                inside = slice(*np.searchsorted(source, (start, stop)))
                own = Neighbors.of(source[inside] - start, target[inside] - start, len(matrix))
                fill_distances(matrix, own, cutoff)
            return
        block = _numbers([digit[rank] for digit in digits], order.size, width)
        start = 0
        for matrix in matrices:
            stop, own_width = start + len(matrix), min(width, max(0, len(matrix) - column))
            matrix[:, column : column + width] = block[start:stop, :own_width]
            start = stop


def _kth_neighbors(targets: np.ndarray, degree: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """The first neighbor of each node that has one, then the second of each that has two, and so on."""
    start, degree = (np.cumsum(degree) - degree)[order], degree[order]
    for k in range(int(degree.max(initial=0))):
        yield targets[start[: np.count_nonzero(degree > k)] + k]


def _reach(reached: np.ndarray, neighbors: Sequence[np.ndarray], cutoff: int | None) -> list[np.ndarray] | None:
    """The binary digits of all distances, the lowest first; ``None`` if there are longer ones than these hold."""
    digits: list[np.ndarray] = []
    for distance in range(1, min(cutoff or _MAX_STEPS + 1, _MAX_STEPS + 1) + 1):
        after = reached.copy()
        for nodes in neighbors:
            after[: nodes.size] |= reached.take(nodes, axis=0)
        new = after ^ reached
        if not new.any():
            break
        if distance > _MAX_STEPS:
            return None
        reached = after
        if distance.bit_length() > len(digits):
            digits.append(np.zeros_like(reached))
        for position, digit in enumerate(digits):
            if distance >> position & 1:
                digit |= new
    return digits


def _numbers(digits: Sequence[np.ndarray], nodes: int, width: int) -> np.ndarray:
    """From words, one for each binary digit, the distances, uint8 of shape (nodes, width or a few more)."""
    octets = -(-width // 8)
    numbers = np.zeros((nodes, octets), "<u8")
    for position, digit in enumerate(digits):
        bits = digit.astype("<u8", copy=False).view(np.uint8)[:, :octets].astype("<u8")
        bits *= _COPIES
        bits >>= np.uint64(7)
        bits &= _LAST_BITS
        bits <<= np.uint64(position)
        numbers |= bits
    return numbers.view(np.uint8)
