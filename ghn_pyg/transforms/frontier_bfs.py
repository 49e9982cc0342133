"""Breadth-first search that follows the frontier: for deep graphs, and for pairs of near nodes of large graphs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from ..utils.memory_guard import check_memory
from .common import MAX_DISTANCE

_PAIRS_AT_A_TIME: Final = 1 << 22
_BYTES_PER_NEAR_PAIR: Final = 40


class Neighbors(NamedTuple):
    """The edges sorted by source: node ``u`` points to ``targets[first[u] : first[u] + degree[u]]``."""

    targets: np.ndarray
    first: np.ndarray
    degree: np.ndarray

    @classmethod
    def of(cls, source: np.ndarray, target: np.ndarray, num_nodes: int) -> Neighbors:
        """Sorts the edges."""
        degree = np.bincount(source, minlength=num_nodes)
        return cls(target[np.argsort(source, kind="stable")], np.cumsum(degree) - degree, degree)

    def after(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All neighbors of the nodes, and how many of them each node has."""
        degree = self.degree[nodes]
        offset = np.arange(degree.sum()) - np.repeat(np.cumsum(degree) - degree, degree)
        return self.targets[np.repeat(self.first[nodes], degree) + offset], degree


def frontiers(neighbors: Neighbors, starts: np.ndarray) -> Iterator[np.ndarray]:
    """Searches from all start nodes at once.

    Yields:
        For the distances 1, 2, … the pairs of a start and a node at that distance, as ``position * N + node``.
    """
    num_nodes = len(neighbors.first)
    row, node = np.arange(len(starts)) * num_nodes, starts
    winner = np.zeros(len(starts) * num_nodes, np.int32)  # 0 where a pair has not been reached
    winner[row + node] = 1
    while True:
        node, degree = neighbors.after(node)
        pair = np.repeat(row, degree) + node
        new = winner[pair] == 0
        pair, node = pair[new], node[new]
        number = np.arange(1, len(pair) + 1, dtype=np.int32)
        winner[pair] = number
        once = winner[pair] == number  # a pair that is reached over several edges counts once
        pair, node = pair[once], node[once]
        if not pair.size:
            return
        row = pair - node
        yield pair


def _start_blocks(num_nodes: int) -> Iterator[np.ndarray]:
    """All nodes, cut into blocks that are searched from together."""
    size = max(1, _PAIRS_AT_A_TIME // max(num_nodes, 1))
    return (np.arange(start, min(start + size, num_nodes)) for start in range(0, num_nodes, size))


def fill_distances(matrix: np.ndarray, neighbors: Neighbors, cutoff: int | None) -> None:
    """Writes all distances of one graph into a matrix of zeros, :math:`(N, N)`."""
    num_nodes = len(matrix)
    for starts in _start_blocks(num_nodes):
        flat = matrix[starts[0] : starts[-1] + 1].reshape(-1)
        for distance, pairs in enumerate(itertools.islice(frontiers(neighbors, starts), cutoff), 1):
            if distance > MAX_DISTANCE:
                raise ValueError(f"distances over {MAX_DISTANCE:,} do not fit into int16; give a cutoff")
            flat[pairs] = distance


def near_pairs(neighbors: Neighbors, cutoff: int, instead: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of nodes within a distance, as :math:`u N + v` in ascending order, and their distances."""
    num_nodes, count = len(neighbors.first), 0
    blocks = [(np.empty(0, np.int64), np.empty(0, np.int16))]
    for starts in _start_blocks(num_nodes):
        layers = list(itertools.islice(frontiers(neighbors, starts), cutoff))
        if layers:
            pairs = np.concatenate(layers)
            order = np.argsort(pairs)
            distance = np.repeat(np.arange(1, len(layers) + 1, dtype=np.int16), [len(layer) for layer in layers])
            blocks.append((pairs[order] + starts[0] * num_nodes, distance[order]))
            count += len(pairs)
            what = f"the list of pairs of {num_nodes:,} nodes within distance {cutoff:,}"
            check_memory(count * _BYTES_PER_NEAR_PAIR, what, instead)
    return np.concatenate([pairs for pairs, _ in blocks]), np.concatenate([distance for _, distance in blocks])
