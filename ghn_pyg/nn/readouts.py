"""Readouts: an embedding of each graph of a batch, from those of its nodes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch_geometric.nn.aggr import Aggregation, AttentionalAggregation
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import aggregation_resolver

from .blocks import Blocks


class Readout(nn.Module):
    r"""One of PyTorch Geometric's aggregations over the nodes of each graph.

    Args:
        aggregation: Its name, such as ``"mean"``, ``"sum"`` or ``"max"``, or an ``Aggregation``.
        options: Arguments of an aggregation given by name.

    Shapes:
        - **input:** nodes :math:`(N, d)`, and the graph ``batch`` :math:`(N,)` of each node, or the blocks of the
          batch (one graph by default)
        - **output:** graphs :math:`(G, d)`, zeros for a graph without nodes; pass ``batch_size``, such as
          ``data.num_graphs``, where graphs at the end of the batch may have no nodes

    Example:
        >>> import torch
        >>> Readout("sum")(torch.tensor([[2.0], [3.0], [5.0]]), torch.tensor([0, 0, 1])).tolist()
        [[5.0], [5.0]]
    """

    def __init__(self, aggregation: str | Aggregation = "mean", **options: Any) -> None:
        super().__init__()
        self.aggregation = aggregation_resolver(aggregation, **options)

    def reset_parameters(self) -> None:
        """Draws the weights of the aggregation anew, if it has any."""
        reset(self.aggregation)

    def forward(self, x: Tensor, batch: Tensor | Blocks | None = None, batch_size: int | None = None) -> Tensor:
        """Aggregates the nodes of each graph."""
        blocks = Blocks.of(batch, x.size(0), batch_size)
        graphs: Tensor = self.aggregation(x, blocks.vector(x.device), dim_size=blocks.batch_size)
        return graphs


class AttentionReadout(Readout):
    r"""The sum over each graph's nodes, weighted by a softmax of one trained score :math:`w^\top x_v + b` per node.

    Args:
        channels: Width :math:`d`.

    Shapes:
        As of :class:`Readout`.

    Example:
        >>> import torch
        >>> AttentionReadout(channels=8)(torch.ones(3, 8), torch.tensor([0, 0, 1])).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__(AttentionalAggregation(nn.Linear(channels, 1)))


class TokenReadout(nn.Module):
    """The first node of each graph, which is its token after :class:`~ghn_pyg.nn.GraphToken`.

    Shapes:
        As of :class:`Readout`; the batch is the one with tokens.

    Example:
        >>> import torch
        >>> TokenReadout()(torch.tensor([[2.0], [3.0], [5.0]]), torch.tensor([0, 0, 1])).tolist()
        [[2.0], [5.0]]
    """

    def forward(self, x: Tensor, batch: Tensor | Blocks | None = None, batch_size: int | None = None) -> Tensor:
        """Selects one node of each graph."""
        return _node_of_each_graph(x, Blocks.of(batch, x.size(0), batch_size), last=False)


class LastReadout(nn.Module):
    """The last node of each graph: the output of a network, whose nodes stand in topological order.

    Shapes:
        As of :class:`Readout`.

    Example:
        >>> import torch
        >>> LastReadout()(torch.tensor([[2.0], [3.0], [5.0]]), torch.tensor([0, 0, 1])).tolist()
        [[3.0], [5.0]]
    """

    def forward(self, x: Tensor, batch: Tensor | Blocks | None = None, batch_size: int | None = None) -> Tensor:
        """Selects one node of each graph."""
        return _node_of_each_graph(x, Blocks.of(batch, x.size(0), batch_size), last=True)


def _node_of_each_graph(x: Tensor, blocks: Blocks, last: bool) -> Tensor:
    counts = blocks.counts.to(x.device)
    ends = counts.cumsum(0)
    row = ends - 1 if last else ends - counts
    return x.index_select(0, row.clamp(0, x.size(0) - 1)).masked_fill((counts == 0)[:, None], 0)
