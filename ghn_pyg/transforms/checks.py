"""Checks of what transforms are given."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data


def check_ends(first: int, last: int, num_nodes: int) -> None:
    """Finds edges from or to nodes that are not there.

    Args:
        first: The lowest number of a node that edges name.
        last: The highest one.
        num_nodes: Number of nodes.

    Raises:
        ValueError: If there are some.
    """
    if first < 0 or last >= num_nodes:
        raise ValueError(f"edges name nodes {first} to {last} of a graph of {num_nodes} nodes; set num_nodes")


def edges_of(data: Data) -> Tensor:
    """The edges of a graph, of shape (2, E).

    Raises:
        ValueError: If it has none.
    """
    edges: Tensor | None = data.edge_index
    if edges is None or edges.dim() != 2 or edges.size(0) != 2:
        found = "none" if edges is None else tuple(edges.shape)
        raise ValueError(f"edge_index expected the shape (2, E), got {found}; give a graph without edges an empty one")
    return edges
