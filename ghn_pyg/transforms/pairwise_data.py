"""Graphs with attributes of all pairs of nodes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from ..utils.compat import set_batch_slices
from ..utils.stale_distances import STALE, distances_fit

_DISTANCES: Final = (torch.uint8, torch.int16)
PAIR_ATTRIBUTES: Final = ("distance", "path_edges", "relative_walks")


class PairwiseData(Data):
    r"""A graph with attributes of all :math:`N^2` pairs of nodes, such as ``distance``.

    The transforms of this package turn ``Data`` into it, and leave subclasses of ``Data`` as they are. A graph may have
    as many edges as pairs of nodes: PyTorch Geometric's transforms still leave attributes of pairs alone, where they
    would sort, double or drop those of edges. Batching warns of distances whose edges have changed since.

    Example:
        >>> from ghn_pyg.transforms import AddShortestPathDistance
        >>> data = AddShortestPathDistance()(Data(edge_index=torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]]), num_nodes=2))
        >>> type(data).__name__, data.is_edge_attr("distance")
        ('PairwiseData', False)
    """

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        # Batches join along any kind of integer; attributes of nodes and edges have a Python int.
        return np.int64(0) if key in PAIR_ATTRIBUTES else super().__cat_dim__(key, value, *args, **kwargs)

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "distance" and value.dtype in _DISTANCES and value.device.type == "cpu":
            (source, target), nodes = self.edge_index.cpu().numpy(), math.isqrt(value.numel())
            outside = source.size and max(source.max(), target.max()) >= nodes
            if outside or not distances_fit(value.numpy(), source * nodes + target, target * nodes + source):
                warnings.warn(STALE, stacklevel=2)
        return super().__inc__(key, value, *args, **kwargs)

    @classmethod
    def add(cls, data: Data, name: str, value: Tensor) -> Data:
        """Adds an attribute of all pairs of nodes to a graph or a batch."""
        kinds = {Data: cls, type(Batch()): type(Batch(_base_cls=cls))}
        object.__setattr__(data, "__class__", kinds.get(type(data), type(data)))  # Data sets its store's attributes
        data[name] = value
        return data

    @classmethod
    def add_to_each(cls, data: Data, name: str, make: Callable[[Data], Tensor]) -> Data:
        """Adds an attribute that is made of each graph of a batch, or of one graph."""
        if not isinstance(data, Batch):
            return cls.add(data, name, make(data))
        values = [make(graph) for graph in data.to_data_list()]
        set_batch_slices(data, name, np.cumsum([0, *map(len, values)]).tolist())
        return cls.add(data, name, torch.cat(values))


torch.serialization.add_safe_globals([PairwiseData])  # as PyTorch Geometric does for its own classes
