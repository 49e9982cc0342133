"""The baseline encoder without a graph."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from .blocks import Blocks


class NodeMLP(nn.Module):
    r"""Encodes every node by itself, :math:`\mathrm{ReLU}(W_2\, \mathrm{ReLU}(W_1 x + b_1) + b_2)`: the MLP baseline.

    From "Parameter Prediction for Unseen Deep Architectures" (arXiv 2110.13100), to show what the graph adds.

    Args:
        channels: Width :math:`d`.

    Shapes:
        - **input:** nodes :math:`(N, d)`; edges, distances and the batch are not used
        - **output:** nodes :math:`(N, d)`

    Example:
        >>> import torch
        >>> NodeMLP(channels=8)(torch.zeros(2, 8), torch.tensor([[0], [1]]), torch.tensor([0, 1, 0, 0])).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU())

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        reset(self.mlp)

    def forward(self, x: Tensor, edge_index: Tensor, distance: Tensor, batch: Tensor | Blocks | None = None) -> Tensor:
        """Encodes the nodes."""
        return self.mlp(x)
