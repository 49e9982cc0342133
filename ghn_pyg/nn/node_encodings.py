"""Encodings of nodes: the shape of their parameters, their degrees and their distance from the input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .blocks import Blocks

MAX_DEGREE = 100
MAX_DEPTH = 1000


def channel_sizes(num_classes: int) -> list[int]:
    """Channel counts with an embedding of their own, ascending."""
    fine, medium, coarse = range(8, 57, 8), range(64, 4081, 16), range(4096, 8193, 32)
    return sorted({1, 3, num_classes, *fine, *medium, *coarse})


def kernel_sizes(max_kernel_size: int) -> list[int]:
    """Kernel sizes with an embedding of their own, ascending."""
    return sorted({1, *range(1, max(12, max_kernel_size), 2), 14, 16})


def nearest_rows(sizes: Sequence[int]) -> Tensor:
    """The row of the embedding of every size from 0 to the largest of ``sizes``.

    Sizes in the list have their own row, others that of the nearest size (of two, the smaller). Size 0 means "no
    shape" and has the last row.
    """
    table = torch.tensor(sizes, device="cpu")
    # Twice the size, compared with twice the middle between two rows: the middle belongs to the smaller one.
    rows = torch.bucketize(torch.arange(0, 2 * sizes[-1] + 1, 2, device="cpu"), table[1:] + table[:-1])
    rows[0] = len(sizes)
    return rows


class Embedding(nn.Embedding):
    r"""A table of embeddings, initialized as truncated normal with standard deviation :math:`d^{-1/2}`.

    Args:
        rows: Number of embeddings.
        width: Width of each.
        channels: Width :math:`d` of the encoding that they are concatenated to; ``width`` by default.

    Shapes:
        - **input:** rows of any shape
        - **output:** embeddings of that shape, with one more dimension of size ``width``

    Example:
        >>> Embedding(5, 8)(torch.tensor([[0, 4]])).shape
        torch.Size([1, 2, 8])
    """

    def __init__(self, rows: int, width: int, channels: int | None = None) -> None:
        self.std = (channels or width) ** -0.5
        super().__init__(rows, width)

    def reset_parameters(self) -> None:
        """Draws all embeddings anew."""
        nn.init.trunc_normal_(self.weight, std=self.std)


class ShapeEncoding(nn.Module):
    r"""Encodes the shape (out, in, height, width) of a node's parameter.

    Four embeddings of width :math:`d/4` are concatenated: of the two channel counts and of the two kernel sizes.
    From "Parameter Prediction for Unseen Deep Architectures" (arXiv 2110.13100).

    Args:
        channels: Width :math:`d`.
        num_classes: Number of classes that the GHN is trained with; it has an embedding of its own.
        max_kernel_size: Largest kernel that is decoded directly.

    Shapes:
        - **input:** node shapes :math:`(N, 4)`, 0 for "no shape"
        - **output:** encodings :math:`(N, d)`

    Example:
        >>> ShapeEncoding(8, 10, 11)(torch.tensor([[64, 3, 7, 7], [0, 0, 0, 0]])).shape
        torch.Size([2, 8])
    """

    channel_rows: Tensor
    spatial_rows: Tensor

    def __init__(self, channels: int, num_classes: int, max_kernel_size: int) -> None:
        super().__init__()
        channel_table, spatial_table = channel_sizes(num_classes), kernel_sizes(max_kernel_size)
        channel_rows, spatial_rows = nearest_rows(channel_table), nearest_rows(spatial_table)
        channel_rows[4:8] = channel_table.index(8)
        channel_rows[num_classes] = channel_table.index(num_classes)
        spatial_rows[2] = spatial_table.index(3)
        self.register_buffer("channel_rows", channel_rows, persistent=False)
        self.register_buffer("spatial_rows", spatial_rows, persistent=False)
        self.channel = Embedding(len(channel_table) + 1, channels // 4, channels)
        self.spatial = Embedding(len(spatial_table) + 1, channels // 4, channels)

    def reset_parameters(self) -> None:
        """Draws all embeddings anew."""
        self.channel.reset_parameters()
        self.spatial.reset_parameters()

    def forward(self, shape: Tensor) -> Tensor:
        """Encodes the node shapes."""
        out_in = self.channel_rows[shape[:, :2].clamp(max=self.channel_rows.numel() - 1)]
        kernel = self.spatial_rows[shape[:, 2:].clamp(max=self.spatial_rows.numel() - 1)]
        return torch.cat((self.channel(out_in), self.spatial(kernel)), dim=1).flatten(1)


class CentralityEncoding(nn.Module):
    r"""Adds an embedding of each node's in-degree and one of its out-degree (Graphormer, arXiv 2106.05234).

    Args:
        channels: Width :math:`d`.
        max_degree: Largest degree with an embedding of its own; larger ones share it.

    Shapes:
        - **input:** edges :math:`(2, E)` and the number of nodes :math:`N`; or degrees, see :meth:`of_degrees`
        - **output:** encodings :math:`(N, d)`

    Example:
        >>> encoding, edges = CentralityEncoding(channels=8), torch.tensor([[0, 0], [1, 2]])
        >>> degrees = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 0])
        >>> torch.equal(encoding(edges, 3), encoding.of_degrees(*degrees))
        True
    """

    def __init__(self, channels: int, max_degree: int = MAX_DEGREE) -> None:
        super().__init__()
        if max_degree < 0:
            raise ValueError(f"max_degree must be at least 0, got {max_degree}")
        self.max_degree = max_degree
        self.in_degree = Embedding(max_degree + 1, channels)
        self.out_degree = Embedding(max_degree + 1, channels)

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        return f"max_degree={self.max_degree}"

    def reset_parameters(self) -> None:
        """Draws all embeddings anew."""
        self.in_degree.reset_parameters()
        self.out_degree.reset_parameters()

    def forward(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Encodes the degrees, clamped to ``max_degree``."""
        ones = edge_index.new_ones(edge_index.size(1))
        out_degree, in_degree = (edge_index.new_zeros(num_nodes).scatter_add_(0, ends, ones) for ends in edge_index)
        return self.of_degrees(in_degree, out_degree)

    def of_degrees(self, in_degree: Tensor, out_degree: Tensor) -> Tensor:
        """Encodes degrees of shape (N,), as added by :class:`~ghn_pyg.transforms.AddCentrality`."""
        most = self.max_degree
        return self.in_degree(in_degree.clamp(max=most)) + self.out_degree(out_degree.clamp(max=most))


class DepthEncoding(Embedding):
    r"""Embeds each node's shortest-path distance from the input, the first node of its graph (GHN-3).

    Args:
        channels: Width :math:`d`.

    Shapes:
        - **input:** distances :math:`(\sum_g N_g^2,)` and the ``batch`` :math:`(N,)` of the nodes, or its blocks
        - **output:** encodings :math:`(N, d)`

    Example:
        >>> DepthEncoding(channels=8)(torch.tensor([0, 1, 0, 0]), Blocks.of(None, 2)).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__(MAX_DEPTH + 1, channels)

    def forward(  # type: ignore[override]
        self, distance: Tensor, batch: Tensor | Blocks, batch_size: int | None = None
    ) -> Tensor:
        """Encodes the distances, clamped to 1,000."""
        blocks = Blocks.of_batch(batch, batch_size)
        depth = blocks.join([part[:, 0] for part in blocks.split_pairs(distance)])
        return super().forward(depth.long().clamp(max=MAX_DEPTH))
