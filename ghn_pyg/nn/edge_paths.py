"""Attention biases from the edges along shortest paths."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.compat import has_plain_values
from ..utils.stale_distances import STALE, distances_fit
from .blocks import Blocks
from .cpu_table_attention import sum_of_columns


class EdgePathEncoding(nn.Module):
    r"""Graphormer's edge encoding: a bias from the features of the edges along a shortest path (arXiv 2106.05234).

    .. math::
        c_{uv} = \frac{1}{L} \sum_{n=1}^{L} x_{e_n}^\top w_n \qquad \text{for the path } (e_1, …, e_L)
        \text{ from } u \text{ to } v,

    with weights :math:`w_n` for each head and position on the path. The products of each edge with all :math:`w_n` are
    computed once and summed for each pair; no features are gathered.

    Args:
        channels: Width of the edge features.
        heads: Number of attention heads :math:`H`.
        max_hops: Number of edges that count, from the start of the path.

    Shapes:
        - **input:** edges :math:`(2, E)`, features :math:`(E, \text{channels})`, or :math:`(E,)` for one channel
          (integers count as numbers: embed categories before), paths :math:`(\sum_g N_g^2, L)` as
          :class:`~ghn_pyg.transforms.AddShortestPathEdges` adds them (positions among the edges of the graph, -1 after
          the end) and the ``batch`` :math:`(N,)` of the nodes, or its blocks
        - **output:** the biases of each block, :math:`(G, H, n, n)`

    Raises:
        ValueError: If features do not fit, or paths are not those of the edges. On a GPU and in compilers, which do not
            read values, only the number of paths is checked.

    Example:
        >>> edges, path = torch.tensor([[0], [1]]), torch.tensor([[-1], [0], [-1], [-1]])
        >>> encoding = EdgePathEncoding(channels=3, heads=2, max_hops=1)
        >>> [part.shape for part in encoding(edges, torch.ones(1, 3), path, Blocks.of(None, 2))]
        [torch.Size([1, 2, 2, 2])]
    """

    def __init__(self, channels: int, heads: int, max_hops: int = 5) -> None:
        super().__init__()
        if max_hops < 1:
            raise ValueError(f"max_hops must be at least 1, got {max_hops}")
        self.max_hops = max_hops
        self.heads = heads
        self.hops = nn.Linear(channels, max_hops * heads, bias=False)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        self.hops.reset_parameters()

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        return f"heads={self.heads}, max_hops={self.max_hops}"

    def forward(
        self,
        edge_index: Tensor,
        edge_attr: Tensor,
        path: Tensor,
        batch: Tensor | Blocks,
        batch_size: int | None = None,
    ) -> list[Tensor]:
        """Computes the biases of a batch."""
        blocks = Blocks.of_batch(batch, batch_size)
        edge_attr = self._features(edge_index, edge_attr)
        if not isinstance(path, Tensor) or path.dim() != 2 or path.is_floating_point():
            shape = f"{path.dtype} of {tuple(path.shape)}" if isinstance(path, Tensor) else type(path).__name__
            raise ValueError(f"path expected integers of shape (pairs, hops), as path_edges has, got {shape}")
        blocks.check_pairs(path)
        hops, counts = min(self.max_hops, path.size(1)), blocks.counts.to(path.device)
        graph = blocks.vector(path.device).index_select(0, edge_index[0])
        edges = torch.zeros_like(counts).scatter_add(0, graph, torch.ones_like(graph))
        first = edges.cumsum(0) - edges
        if path.device.type == "cpu" and has_plain_values(path, edge_index):
            _check_paths(path, edge_index, edges, blocks)
        # Each graph has one more column in front, of zeros, where the -1 after the end of a path leads.
        own = torch.arange(graph.size(0), device=graph.device) + graph + 1
        weight = self.hops.weight[: hops * self.heads]
        products = F.linear(edge_attr, weight).view(-1, hops, self.heads).permute(1, 2, 0)
        tables = products.new_zeros(hops, self.heads, graph.size(0) + counts.size(0)).index_copy(2, own, products)
        offset = first + torch.arange(1, counts.size(0) + 1, device=first.device)
        steps = path.t()[:hops]
        columns = steps + offset.to(path.dtype).repeat_interleave(counts.square(), output_size=path.size(0))
        length = functools.reduce(torch.add, ((step >= 0).to(tables.dtype) for step in steps))
        values = sum_of_columns(tables, columns) / length.clamp(min=1)
        return blocks.biases(values.t())

    def _features(self, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """The features as numbers of the shape (E, channels)."""
        shape = (edge_index.size(1), self.hops.in_features)
        if not isinstance(edge_attr, Tensor):
            raise ValueError(f"edge_attr expected features of the shape {shape}, got {type(edge_attr).__name__}")
        features = edge_attr[:, None] if edge_attr.dim() == 1 else edge_attr
        if features.dim() and features.size(0) != shape[0]:
            raise ValueError(f"edge_attr expected a row for each of {shape[0]} edges, got {features.size(0)}")
        if features.shape != shape or features.is_complex():
            raise ValueError(f"edge_attr expected the shape {shape}, got {edge_attr.dtype} of {tuple(edge_attr.shape)}")
        return features.to(self.hops.weight.dtype)


def edge_pairs(edge_index: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor, Tensor]:
    r"""For each edge the row of its pair of nodes in values of all pairs, that of the reverse pair, and its graph.

    Raises:
        ValueError: If an edge connects different graphs.
    """
    counts, graph = blocks.counts, blocks.vector()[edge_index[0]]
    starts, squares = counts.cumsum(0) - counts, counts.square().cumsum(0) - counts.square()
    source, target = edge_index - starts[graph]
    size = counts[graph]
    if not ((target >= 0) & (target < size)).all():
        raise ValueError("edges connect different graphs of the batch; its batch does not fit its edge_index")
    return squares[graph] + source * size + target, squares[graph] + target * size + source, graph


def check_distances(distance: Tensor, edge_index: Tensor, blocks: Blocks) -> None:
    """Raises an error unless distances are those of the edges, where values of tensors may be read."""
    if distance.device.type == "cpu" and has_plain_values(distance, edge_index):
        blocks.check_pairs(distance)
        there, back, _ = edge_pairs(edge_index, blocks)
        if not distances_fit(distance.numpy(), there.numpy(), back.numpy()):
            raise ValueError(STALE)


def _check_paths(path: Tensor, edge_index: Tensor, edges: Tensor, blocks: Blocks) -> None:
    """Raises an error unless each edge is the path from its source to its target, and paths have no other edges."""
    there, back, graph = edge_pairs(edge_index, blocks)
    link, hop = there != back, path[there][:, :2].long()
    position = (hop[:, 0] + (edges.cumsum(0) - edges)[graph]).clamp(0, max(0, graph.numel() - 1))
    ends = edge_index[:, position]
    same = ((ends == edge_index).all(0) | (ends == edge_index.flip(0)).all(0)) & (hop[:, 0] >= 0)
    same &= (hop[:, 1:] < 0).all(1) & bool((graph[1:] >= graph[:-1]).all())
    most = edges.to(path.dtype).repeat_interleave(blocks.counts.square())
    if not ((same | ~link).all() and (path[:, 0] < most).all()):
        raise ValueError(
            "path_edges do not fit edge_index: edges were dropped, added or reordered after AddShortestPathEdges; "
            "apply it again"
        )
