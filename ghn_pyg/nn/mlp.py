"""The baseline encoder without a graph."""

from __future__ import annotations

from torch import Tensor, nn

from .ragged import Blocks


class NodeMLP(nn.Module):
    r"""Encodes every node for itself, :math:`\mathrm{ReLU}(W_2\, \mathrm{ReLU}(W_1 x + b_1) + b_2)`: the MLP baseline.

    From "Parameter Prediction for Unseen Deep Architectures" (arXiv 2110.13100), where it shows what the graph adds.

    Args:
        channels: Width :math:`d`.

    Shapes:
        - **input:** nodes :math:`(N, d)`; edges, distances and the batch are taken as by every encoder, and not used
        - **output:** nodes :math:`(N, d)`
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU())

    def forward(self, x: Tensor, edge_index: Tensor, distance: Tensor, batch: Tensor | Blocks | None = None) -> Tensor:
        """Encodes the nodes."""
        return self.mlp(x)
