"""Relative random-walk probabilities of all pairs of nodes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from ..utils.memory_guard import check_memory
from .common import Transform, edge_array, edges_of
from .pairwise_data import PairwiseData


class AddRelativeWalks(Transform):
    r"""Adds ``relative_walks``: how likely a random walk leads from each node to each other one, :math:`(N^2, K)`.

    .. math::
        P = (I, M, M^2, \ldots, M^{K-1}), \qquad M = D^{-1} A

    Row :math:`u N + v` holds the probabilities that a walk from :math:`u` is at :math:`v` after 0, 1, …,
    :math:`K - 1` steps; a walk ends at a node without outgoing edges. From GRIT (arXiv 2305.17589). Time grows with
    :math:`K N E`.

    Args:
        steps: Number :math:`K` of steps, with that of length 0.

    Shapes:
        - **output:** float32

    Raises:
        ValueError: If ``steps`` is below 1.
        MemoryError: If the probabilities do not fit into the free memory.

    Example:
        >>> data = Data(edge_index=torch.tensor([[0, 0, 1, 2], [1, 2, 0, 0]]), num_nodes=3)
        >>> AddRelativeWalks(2)(data).relative_walks.view(3, 3, 2)[0].tolist()
        [[1.0, 0.0], [0.0, 0.5], [0.0, 0.5]]
    """

    def __init__(self, steps: int = 8) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.steps = steps

    def forward(self, data: Data) -> Data:
        """Returns ``data`` with its probabilities."""
        return PairwiseData.add_to_each(data, "relative_walks", self._walks)

    def _walks(self, data: Data) -> Tensor:
        edge_index, nodes = edges_of(data), data.num_nodes
        edge_array(edge_index, nodes)  # raises if an edge names a node that does not exist
        check_memory(8 * nodes**2 * self.steps, f"random walks of {self.steps} steps between {nodes:,} nodes")
        source, target = edge_index.cpu()
        share = (1 / torch.bincount(source, minlength=nodes).clamp(min=1).float())[source]
        at = [torch.eye(nodes)]
        for _ in range(self.steps - 1):
            # Columns are where a walk is: those of a target get the share of those of its sources.
            at.append(torch.zeros(nodes, nodes).index_add(1, target, at[-1][:, source] * share))
        return torch.stack(at, -1).flatten(0, 1)
