"""What the transforms share: their base class, checks of their input, and attributes of all pairs in batches."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from ..utils.check_homogeneous import check_homogeneous

MAX_DISTANCE: Final = np.iinfo(np.int16).max


class Transform(BaseTransform):
    """A transform whose ``repr`` shows its options: PyG compares it with what a data set was processed with."""

    def __call__(self, data: Any) -> Any:
        """Applies the transform to a copy of the graph."""
        check_homogeneous(data)
        return super().__call__(data)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


def edges_of(data: Data) -> Tensor:
    """The ``edge_index`` of a graph or of a batch."""
    check_homogeneous(data)
    edge_index: Tensor | None = data.edge_index
    if edge_index is None or edge_index.dim() != 2 or edge_index.size(0) != 2:
        shape = "none" if edge_index is None else tuple(edge_index.shape)
        raise ValueError(f"edge_index expected the shape (2, E), got {shape}; give a graph without edges an empty one")
    return edge_index


def edge_array(edge_index: Tensor, num_nodes: int) -> np.ndarray:
    """The edges of one graph as an array of shape (2, E)."""
    edges = edge_index.cpu().numpy()
    if edges.size and (edges.min() < 0 or edges.max() >= num_nodes):
        raise ValueError(
            f"edges name nodes {edges.min()} to {edges.max()} of a graph of {num_nodes} nodes; set num_nodes"
        )
    return edges


def check_cutoff(cutoff: int) -> None:
    """Raises an error unless ``cutoff`` is a whole number from 1 to the largest int16."""
    if cutoff != int(cutoff) or not 1 <= cutoff <= MAX_DISTANCE:
        raise ValueError(f"cutoff must be a whole number between 1 and {MAX_DISTANCE:,}, got {cutoff}")


def distance_type(cutoff: int | None) -> type[np.integer]:
    """The smallest type for distances, the same for all graphs of a data set."""
    return np.uint8 if cutoff is not None and cutoff <= 254 else np.int16
