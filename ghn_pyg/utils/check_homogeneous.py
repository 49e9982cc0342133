"""A check that graphs have one type of nodes and edges."""

from __future__ import annotations

from typing import Any

from torch_geometric.data import HeteroData


def check_homogeneous(data: Any) -> None:
    """Raises an error for graphs with several types of nodes or edges.

    Example:
        >>> check_homogeneous(HeteroData())
        Traceback (most recent call last):
        TypeError: expected Data with one type of nodes and edges, got HeteroData; call data.to_homogeneous()
    """
    if isinstance(data, HeteroData):
        raise TypeError("expected Data with one type of nodes and edges, got HeteroData; call data.to_homogeneous()")
