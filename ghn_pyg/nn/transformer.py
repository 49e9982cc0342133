"""The graph transformer of GHN-3: full attention among the nodes of a graph, biased by their distances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encodings import CentralityEncoding, DepthEncoding
from .ragged import distance_blocks

MAX_DISTANCE = 254


def sinusoids(rows: int, channels: int) -> Tensor:
    """Sinusoidal position embeddings of shape (rows, channels), the first row zero."""
    position = torch.arange(rows)[:, None]
    rate = torch.exp(torch.arange(0, channels, 2) * (-torch.log(torch.tensor(10_000.0)) / channels))
    table = torch.stack((torch.sin(position * rate), torch.cos(position * rate)), dim=2).flatten(1)[:, :channels]
    table[0] = 0
    return table


class DistanceEmbedding(nn.Embedding):
    """A trainable table of embeddings that starts as :func:`sinusoids`."""

    def reset_parameters(self) -> None:
        """Sets all embeddings back to sinusoids."""
        with torch.no_grad():
            self.weight.copy_(sinusoids(*self.weight.shape))


class DistanceBias(nn.Module):
    r"""One additive attention bias per head for every ordered pair of nodes, from their two distances.

    The feature of the pair (query :math:`u`, key :math:`v`) is :math:`e_{d(u,v)} \Vert e_{d(v,u)}`, sent through
    :math:`W_2\, \mathrm{ReLU}(W_1 \cdot + b_1) + b_2`. In a directed acyclic graph one of the two distances is 0, so
    there are no more than :math:`2 \cdot 254 + 1` different features: they are computed once, and pairs look theirs
    up by the signed distance :math:`d(u, v) - d(v, u)`. Nothing of size :math:`N^2 d` is ever held.
    From GHN-3 (arXiv 2303.04143), after Graphormer (arXiv 2106.05234).

    Args:
        channels: Width :math:`d` of the embeddings.
        heads: Number of attention heads :math:`H`.

    Shapes:
        - **input:** distances :math:`(N, N)` of an acyclic graph, 0 for none; larger ones count as 254
        - **output:** biases :math:`(H, N, N)`
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        # Row 0 is the original padding row; a distance has the row two after it.
        self.distance = DistanceEmbedding(MAX_DISTANCE + 3, channels)
        self.mlp = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, heads))

    def table(self) -> Tensor:
        """The bias of each signed distance from -254 to 254, of shape (heads, 509)."""
        rows = self.distance.weight[2:]
        none = rows[:1].expand(MAX_DISTANCE, -1)
        forward = torch.cat((none, rows))
        backward = torch.cat((rows.flip(0), none))
        return self.mlp(torch.cat((forward, backward), dim=1)).t()

    def forward(self, distances: Sequence[Tensor]) -> list[Tensor]:
        """The biases of each graph of a batch."""
        table = self.table()
        return [lookup_bias(table, signed_distance(distance)) for distance in distances]


def signed_distance(distance: Tensor) -> Tensor:
    """:math:`d(u, v) - d(v, u) + 254` of shape (N, N): a position in the table of biases."""
    clamped = distance.clamp(max=MAX_DISTANCE).to(torch.int16)
    return (clamped - clamped.t()).add_(MAX_DISTANCE).long()


def lookup_bias(table: Tensor, position: Tensor) -> Tensor:
    """``table[:, position]``, with a backward pass that adds up in one sweep."""
    heads = table.size(0)
    return table.gather(1, position.view(1, -1).expand(heads, -1)).view(heads, *position.shape)


class GraphormerLayer(nn.Module):
    r"""A pre-norm transformer layer over the nodes of each graph.

    .. math::
        x \leftarrow x + \mathrm{Attn}(\mathrm{LN}(x)), \qquad x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x)), \qquad
        \mathrm{Attn} = \mathrm{softmax}\left(Q K^\top / \sqrt{d/H} + B\right) V

    with the bias :math:`B` of each head added to the scores (Graphormer, arXiv 2106.05234).

    Args:
        channels: Width :math:`d`.
        heads: Number of heads :math:`H`; it divides :math:`d`.

    Shapes:
        - **input:** nodes :math:`(\sum_g N_g, d)` and for each graph a bias :math:`(H, N_g, N_g)`
        - **output:** nodes :math:`(\sum_g N_g, d)`
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.ff = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def attend(self, x: Tensor, biases: Sequence[Tensor]) -> Tensor:
        """Self-attention inside each graph.

        The bias needs all four dimensions: with fewer PyTorch leaves its fused kernel (7 times slower on a CPU).
        """
        heads = self.qkv(x).view(x.size(0), 3, self.heads, -1).permute(1, 2, 0, 3)
        parts = heads.split([bias.size(-1) for bias in biases], dim=2)
        attended = [
            F.scaled_dot_product_attention(q[None], k[None], v[None], bias[None].to(q.dtype)).squeeze(0)
            for (q, k, v), bias in zip(parts, biases, strict=True)
        ]
        return self.out(torch.cat(attended, dim=1).transpose(0, 1).flatten(1))

    def forward(self, x: Tensor, biases: Sequence[Tensor]) -> Tensor:
        """Applies the layer."""
        x = x + self.attend(self.norm1(x), biases)
        return x + self.ff(self.norm2(x))


class GraphTransformer(nn.Module):
    r"""The encoder of GHN-3: centrality and depth encodings, then Graphormer layers that share one distance bias.

    From "Can We Scale Transformers to Predict Parameters of Diverse ImageNet Models?" (arXiv 2303.04143).

    Args:
        channels: Width :math:`d`.
        layers: Number of layers.
        heads: Attention heads :math:`H`.

    Shapes:
        - **input:** nodes :math:`(\sum_g N_g, d)`, edges :math:`(2, E)`, distances :math:`(\sum_g N_g^2,)` and the
          sizes :math:`N_g` (one graph by default)
        - **output:** nodes :math:`(\sum_g N_g, d)`

    Example:
        >>> encoder = GraphTransformer(channels=8, layers=2, heads=2)
        >>> edges, distance = torch.tensor([[0], [1]]), torch.tensor([0, 1, 0, 0])
        >>> encoder(torch.zeros(2, 8), edges, distance).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int, layers: int, heads: int) -> None:
        super().__init__()
        self.centrality = CentralityEncoding(channels)
        self.depth = DepthEncoding(channels)
        self.spatial = DistanceBias(channels, heads)
        self.layers = nn.ModuleList(GraphormerLayer(channels, heads) for _ in range(layers))

    def forward(self, x: Tensor, edge_index: Tensor, distance: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
        """Encodes the nodes of one or more graphs."""
        sizes = [x.size(0)] if sizes is None else sizes
        x = x + self.centrality(edge_index, x.size(0)) + self.depth(distance, sizes)
        biases = self.spatial(distance_blocks(distance, sizes))
        for layer in self.layers:
            x = layer(x, biases)
        return x
