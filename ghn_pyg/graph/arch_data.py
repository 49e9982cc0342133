"""A network's architecture as a PyTorch Geometric graph."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, Final, Literal

import networkx as nx
import torch
from torch import Tensor
from torch_geometric.data import Data

from .node_types import PRIMITIVES

Layout = Literal["out_in", "in_out", "channels_last"]
NodeShape = tuple[int, int, int, int]
NO_SHAPE: Final[NodeShape] = (0, 0, 0, 0)
"""Shape of nodes without parameter and without kernel."""


@dataclasses.dataclass(frozen=True, slots=True)
class ParamSpec:
    """One parameter that is decoded from a node.

    Args:
        name: Its name in the network.
        shape: Its shape in the network.
        role: ``"weight"`` (convolutions and linear layers), ``"gain"`` (of a norm), ``"bias"`` (of a norm or a layer),
            or ``"position"`` (a learned position or an embedding table).
        layout: ``"out_in"`` as PyTorch stores convolutions and linear layers, ``"in_out"`` for those that store the
            input dimension first (transposed convolutions, ``x @ W``), ``"channels_last"`` for maps of learned
            positions whose channels come last.
        groups: Groups of a transposed convolution, whose output dimension is stored divided by them.
        stacked: Number of leading dimensions that stack matrices of the same use, such as those of experts; all of
            them get the same values.
        extra_rows: Leading rows of a position table that belong to class or register tokens.
        added: Number that the network adds to a gain before it multiplies by it.
        axes: For a weight that becomes a matrix, or a gain or bias that becomes a vector, by joining dimensions: a
            letter for each dimension, ``o`` for output, ``i`` for input, ``s`` for a stack, all of whose matrices get
            the same values. ``"ioo"`` is a weight of shape (features, heads, features per head). Empty if ``layout``
            and ``stacked`` describe the shape.
    """

    name: str
    shape: tuple[int, ...]
    role: Literal["weight", "gain", "bias", "position"]
    layout: Layout = "out_in"
    groups: int = 1
    stacked: int = 0
    extra_rows: int = 0
    added: int = 0
    axes: str = ""

    @property
    def is_map(self) -> bool:
        """Whether positions form a map (…, C, height, width) instead of rows of C numbers."""
        return len(self.shape) > 3 and self.layout != "channels_last"

    def along(self, axis: str) -> int:
        """The number of elements along all dimensions with this letter (see ``axes``)."""
        return math.prod(size for size, letter in zip(self.shape, self.axes, strict=True) if letter == axis)

    def node_shape(self) -> NodeShape:
        """The shape for the node's shape encoding: (out, in, height, width)."""
        size = self.shape
        if self.role == "position":
            if self.is_map:
                return (1, *size[-3:])  # type: ignore[return-value]
            side = math.isqrt(math.prod(size[:-1]))
            return (1, size[-1], side, side)
        if self.axes:
            return (self.along("o"), self.along("i"), 1, 1)
        size = size[self.stacked :]
        if len(size) < 2:
            return (*(size or (1,)), 1, 1, 1)  # type: ignore[return-value]
        out, into = (size[1] * self.groups, size[0] // self.groups) if self.layout == "in_out" else size[:2]
        kernel = (size[2], 1) if len(size) == 3 else size[-2:] if len(size) > 3 else (1, 1)
        return (out, into, *kernel)  # type: ignore[return-value]


class ArchData(Data):
    r"""The graph of one network, or of several when batched with :class:`torch_geometric.data.Batch`.

    Args:
        node_type: Types of shape :math:`(N,)`, positions in :data:`~ghn_pyg.PRIMITIVES`.
        edge_index: Edges of distance 1, of shape :math:`(2, E)`, in the direction of the data flow.
        node_shape: Shapes of shape :math:`(N, 4)` as (out, in, kernel height, kernel width); 0 for "no shape".
        classifier: Mask of shape :math:`(N,)`: weight and bias of the classification layer.
        distance: Shortest-path distances, flattened to :math:`(N^2,)` for each graph.
        params: The parameters that are decoded from each node.
        node_names: The name of each node: its first parameter, or the module and type of its operation.
        kept: Reason for each parameter that is not predicted.
        kept_shapes: Their shapes.
        tied: First name of each shared parameter, by its further names.

    Nodes stand in topological order, the input first and the classifier's last tensor last.

    Example:
        >>> from ghn_pyg import from_module
        >>> graph = from_module(torch.nn.Linear(3, 2), torch.zeros(1, 3))
        >>> graph.node_types, graph.param_names
        (['input', 'conv', 'bias'], [[], ['weight'], ['bias']])
    """

    def __init__(
        self,
        *args: Any,
        kept: dict[str, str] | None = None,
        kept_shapes: dict[str, tuple[int, ...]] | None = None,
        tied: dict[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(*args, **fields)
        # Stored as pairs: PyG batches dictionaries key by key, and graphs have different keys.
        if kept is not None:
            self.kept_items = tuple(kept.items())
            self.kept_shape_items = tuple((kept_shapes or {}).items())
        if tied is not None:
            self.tied_items = tuple(tied.items())

    @property
    def kept(self) -> Any:
        """Reason for each parameter that is not predicted (a list of dictionaries for a batch)."""
        return _dictionaries(self, self.kept_items)

    @property
    def kept_shapes(self) -> Any:
        """The shapes of kept parameters (a list of dictionaries for a batch)."""
        return _dictionaries(self, self.kept_shape_items)

    @property
    def tied(self) -> Any:
        """First name of each shared parameter, by its further names (a list of dictionaries for a batch)."""
        return _dictionaries(self, self.tied_items)

    @property
    def node_types(self) -> list[Any]:
        """The type of each node by name (a list for each graph of a batch)."""
        names = [PRIMITIVES[kind] for kind in self.node_type.tolist()]
        if self.get("ptr") is None:
            return names
        return [names[start:stop] for start, stop in itertools.pairwise(self.ptr.tolist())]

    @property
    def param_names(self) -> list[Any]:
        """Names of the parameters that are decoded from each node (a list for each graph of a batch)."""
        return _names(self.params)

    @property
    def graph_sizes(self) -> list[int]:
        """Number of nodes of each graph."""
        ptr = self.get("ptr")
        return [self.num_nodes] if ptr is None else ptr.diff().tolist()

    def distances(self) -> Tensor:
        """Shortest-path distances of shape :math:`(N, N)`; 0 on the diagonal and where there is no path.

        For a batch the matrix is block-diagonal.
        """
        sizes = self.graph_sizes
        blocks = self.distance.split([size * size for size in sizes])
        return torch.block_diag(*(block.view(size, size).long() for block, size in zip(blocks, sizes, strict=True)))

    def to_networkx(self) -> nx.DiGraph:
        """A networkx view for pictures and analysis, with ``type``, ``name``, ``params`` and ``shape`` on each node.

        Raises:
            ValueError: If called on a batch.
        """
        if self.get("ptr") is not None:
            raise ValueError("to_networkx expected one graph, got a batch; call it on each of batch.to_data_list()")
        graph = nx.DiGraph()
        for node, (kind, shape) in enumerate(zip(self.node_types, self.node_shape.tolist(), strict=True)):
            graph.add_node(
                node,
                type=kind,
                name=self.node_names[node],
                params=[spec.name for spec in self.params[node]],
                shape=tuple(shape) if any(shape) else None,
            )
        graph.add_edges_from(self.edge_index.t().tolist())
        return graph


def _names(params: Any) -> Any:
    return [param.name if isinstance(param, ParamSpec) else _names(param) for param in params]


def _dictionaries(data: ArchData, items: Any) -> Any:
    return dict(items) if data.get("ptr") is None else [dict(pairs) for pairs in items]
