"""Checks of what transforms are given."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data


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
