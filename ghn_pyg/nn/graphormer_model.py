"""Graphormer as a model that takes PyTorch Geometric's graphs."""

from __future__ import annotations

from typing import Any, Literal, Self, Unpack

from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn.inits import reset

from ..utils.check_homogeneous import check_homogeneous
from .attention import add_biases
from .attention_bias import SpatialEncoding
from .blocks import Blocks
from .edge_paths import EdgePathEncoding
from .graphormer import GraphToken, GraphTransformer
from .node_encodings import CentralityEncoding
from .readouts import Readout, TokenReadout
from .transformer_layer import LayerOptions, make_norm

Level = Literal["graph", "node", "edge"]


class SumOfEmbeddings(nn.Module):
    """The sum of the embeddings of a few categories, each a column; or of one, without columns."""

    def __init__(self, types: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(types, channels)

    def reset_parameters(self) -> None:
        """Draws all embeddings anew, with standard deviation 0.02."""
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, types: Tensor) -> Tensor:
        """Embeds categories (N,) or (N, columns)."""
        if types.is_floating_point():
            raise ValueError(f"types expected integers, got {types.dtype}; for numbers give the number of channels")
        embedded: Tensor = self.embedding(types.view(types.size(0), -1).long()).sum(1)
        return embedded


def feature_encoder(channels: int | None, types: int | None, what: str, out_channels: int) -> nn.Module:
    """A linear layer for numbers, or embeddings for categories."""
    if (channels is None) == (types is None):
        raise ValueError(f"expected either {what}_channels or {what}_types, got {channels} and {types}")
    return nn.Linear(channels, out_channels) if channels is not None else SumOfEmbeddings(types or 0, out_channels)


class Graphormer(nn.Module):
    r"""Graphormer, "Do Transformers Really Perform Bad for Graph Representation?" (arXiv 2106.05234).

    Embeddings of nodes and of their degrees, then transformer layers whose attention is biased by shortest-path
    distances and by the edges along the paths, with a token for each graph:

    .. math::
        x_v = h_v + z^-_{\deg^-(v)} + z^+_{\deg^+(v)}, \qquad
        A_{uv} = q_u^\top k_v / \sqrt{d/H} + b_{\phi(u, v)} + c_{uv}

    Defaults are the paper's: pre-norm, GELU, a feed-forward network as wide as the nodes, biases of queries, keys and
    values, dropout 0.1. :meth:`slim` and :meth:`base` are the published sizes.

    Where all nodes have equal features and degrees, bias alone distinguishes nothing: attention averages equal values.
    The token counts nodes only by what it sees; for regular graphs add random walks to ``x`` (see
    ``torch_geometric.transforms.AddRandomWalkPE``).

    Args:
        in_channels: Width of node features ``x``, if they are numbers.
        node_types: Otherwise the number of categories of ``x``, of shape :math:`(N,)` or :math:`(N, \text{columns})`.
        edge_channels: Width of edge features ``edge_attr``, if they are numbers.
        edge_types: Otherwise the number of their categories. Without both, edges have no features.
        out_channels: Width of the result; ``None`` for embeddings.
        level: Whether there is a result for each graph, node or edge.
        readout: ``"token"``, or for graphs one of PyTorch Geometric's aggregations, such as ``"mean"``.
        channels: Width :math:`d`.
        layers: Number of layers.
        heads: Attention heads :math:`H`.
        max_degree: Largest degree with an embedding of its own.
        max_distance: Largest distance with a bias of its own.
        max_hops: Edges of a path that count, from its start.
        directed: Whether distances in both directions count, and paths follow the edges.
        dropout: Dropout probability of updates and of attention weights.
        final_norm: Whether a norm follows the last layer.
        options: Options of :class:`~ghn_pyg.nn.TransformerLayer`.

    Shapes:
        - **input:** a ``Data`` or ``Batch`` with ``x``, ``edge_index``, for edge features ``edge_attr``, and
          ``path_edges``, and ``distance``, of :class:`~ghn_pyg.transforms.AddShortestPathEdges` and
          :class:`~ghn_pyg.transforms.AddShortestPathDistance`
        - **output:** :math:`(G, \text{out})` for graphs, also those without nodes; :math:`(N, \text{out})` for nodes;
          :math:`(E, \text{out})` for edges

    Raises:
        ValueError: If arguments or features do not fit, or distances or paths are not those of the edges.
        TypeError: For ``HeteroData``.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch
        >>> from ghn_pyg.transforms import AddShortestPathDistance
        >>> data = Data(x=torch.zeros(3, 5), edge_index=torch.tensor([[0, 1], [1, 2]]))
        >>> batch = Batch.from_data_list([AddShortestPathDistance()(data), AddShortestPathDistance()(data)])
        >>> Graphormer(in_channels=5, out_channels=7, channels=8, layers=2, heads=2)(batch).shape
        torch.Size([2, 7])
        >>> sum(weight.numel() for weight in Graphormer.slim(node_types=64, edge_types=64, out_channels=1).parameters())
        489321
    """

    def __init__(
        self,
        in_channels: int | None = None,
        *,
        node_types: int | None = None,
        edge_channels: int | None = None,
        edge_types: int | None = None,
        out_channels: int | None = None,
        level: Level = "graph",
        readout: str = "token",
        channels: int = 80,
        layers: int = 12,
        heads: int = 8,
        max_degree: int = 100,
        max_distance: int = 20,
        max_hops: int = 5,
        directed: bool = False,
        dropout: float = 0.1,
        final_norm: bool = True,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__()
        if level not in ("graph", "node", "edge"):
            raise ValueError(f"level expected 'graph', 'node' or 'edge', got {level!r}")
        self.level = level
        self.nodes = feature_encoder(in_channels, node_types, "node", channels)
        self.centrality = CentralityEncoding(channels, max_degree)
        self.spatial = SpatialEncoding(heads, max_distance, directed)
        self.edges: nn.Module | None = None
        self.paths: EdgePathEncoding | None = None
        if edge_channels is not None or edge_types is not None:
            self.edges = feature_encoder(edge_channels, edge_types, "edge", heads)
            self.paths = EdgePathEncoding(heads, heads, max_hops)
        self.token = GraphToken(channels, heads) if readout == "token" else None
        paper: LayerOptions = {"ff_channels": channels, "qkv_bias": True}
        with_options: LayerOptions = {**paper, **options}
        self.layers = GraphTransformer(channels, layers, heads, dropout, **with_options)
        self.norm = make_norm(options.get("norm", "layer"), channels) if final_norm else None
        self.readout = TokenReadout() if readout == "token" else Readout(readout)
        width = 2 * channels if level == "edge" else channels
        self.head = None if out_channels is None else nn.Linear(width, out_channels)
        self.reset_parameters()

    @classmethod
    def slim(cls, in_channels: int | None = None, **options: Any) -> Self:
        """12 layers of width 80, 8 heads: 489,321 parameters with 64 types of atoms and of bonds, as on ZINC."""
        size = {"channels": 80, "layers": 12, "heads": 8, "max_degree": 63, "max_distance": 37, "max_hops": 40}
        return cls(in_channels, **{**size, "final_norm": False, **options})

    @classmethod
    def base(cls, in_channels: int | None = None, **options: Any) -> Self:
        """12 layers of width 768, 32 heads: 47.1 M parameters with 4,609 types of atoms, 1,537 of bonds (PCQM4M)."""
        size = {"channels": 768, "layers": 12, "heads": 32, "max_degree": 511, "max_distance": 509, "max_hops": 128}
        return cls(in_channels, **{**size, **options})

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for part in self.children():
            reset(part)

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        return f"level={self.level!r}"

    def _attribute(self, data: Data, name: str, transform: str) -> Tensor:
        if name not in data:
            options = f"directed={self.spatial.back is not None}"
            raise ValueError(
                f"data has no {name}; apply ghn_pyg.transforms.{transform}({options}) to each graph before"
            )
        attribute: Tensor = data[name]
        return attribute

    def forward(self, data: Data) -> Tensor:
        """Computes the result of one graph or a batch."""
        check_homogeneous(data)
        x, edge_index = self.nodes(data.x), data.edge_index
        distance = self._attribute(data, "distance", "AddShortestPathDistance")
        batch_size = data.num_graphs if isinstance(data, Batch) else None
        before = blocks = Blocks.of(data.batch, x.size(0), batch_size)
        bias = self.spatial(distance, before, edge_index=edge_index)
        if self.paths is not None and self.edges is not None:
            path = self._attribute(data, "path_edges", "AddShortestPathEdges")
            if data.edge_attr is None:
                raise ValueError("edge_attr expected features of edges, got none")
            bias = add_biases(bias, self.paths(edge_index, self.edges(data.edge_attr), path, before))
        x = x + self.centrality(edge_index, x.size(0)).to(x.dtype)
        if self.token is not None:
            x, blocks, bias = self.token(x, before, bias)
        x = self.layers(x, blocks, bias)
        if self.norm is not None:
            x = self.norm(x, blocks)
        if self.level == "graph":
            x = self.readout(x, blocks)
        else:
            x = x if self.token is None else self.token.split(x, blocks)[1]
            if self.level == "edge":
                x = x[edge_index.t()].flatten(1)
        return x if self.head is None else self.head(x)
