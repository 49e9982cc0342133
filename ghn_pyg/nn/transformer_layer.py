"""What transformer layers share: weights, norms, dropouts and the feed-forward network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GraphNorm
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver

from .blocks import Blocks

Norm = Literal["layer", "batch", "rms", "graph"]


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over the nodes of all graphs."""

    def forward(self, x: Tensor, blocks: Blocks | None = None) -> Tensor:
        """Normalizes the nodes."""
        return super().forward(x)


class LayerNorm(nn.LayerNorm):
    """Layer norm of each node."""

    def forward(self, x: Tensor, blocks: Blocks | None = None) -> Tensor:
        """Normalizes the nodes."""
        return super().forward(x)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm of each node."""

    def forward(self, x: Tensor, blocks: Blocks | None = None) -> Tensor:
        """Normalizes the nodes."""
        return super().forward(x)


class NodeGraphNorm(GraphNorm):
    """Graph norm over the nodes of each graph (arXiv 2009.03294)."""

    def forward(self, x: Tensor, blocks: Blocks) -> Tensor:
        """Normalizes the nodes."""
        normalized: Tensor = super().forward(x, blocks.vector(x.device), blocks.batch_size)
        return normalized


_NORMS: Final = {"layer": LayerNorm, "batch": BatchNorm, "rms": RMSNorm, "graph": NodeGraphNorm}


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """A norm by its name, called as ``norm(x, blocks)``."""
    if norm not in _NORMS:
        raise ValueError(f"norm expected one of {', '.join(_NORMS)}, got {norm!r}")
    return _NORMS[norm](channels)


class LayerOptions(TypedDict, total=False):
    """Options of :class:`TransformerLayer`, see there."""

    ff_channels: int | None
    activation: str
    attention_dropout: float | None
    hidden_dropout: float
    path_dropout: float
    norm: Norm
    norm_first: bool
    qkv_bias: bool
    out_bias: bool


class TransformerLayer(nn.Module):
    """The weights of a transformer layer; subclasses compute the attention.

    Args:
        channels: Width :math:`d`.
        heads: Number of heads; it divides the width.
        dropout: Dropout probability of both updates.
        ff_channels: Width of the feed-forward network, :math:`4d` by default.
        activation: Its activation, by any name that PyTorch Geometric knows.
        attention_dropout: Dropout probability of attention weights, ``dropout`` by default.
        hidden_dropout: Dropout probability inside the feed-forward network.
        path_dropout: Probability that an update of a graph is left out (stochastic depth, arXiv 1603.09382).
        norm: ``"layer"``, ``"batch"``, ``"rms"`` or ``"graph"``.
        norm_first: Whether norms come before attention and feed-forward network, or after their updates.
        qkv_bias: Whether queries, keys and values have biases.
        out_bias: Whether the output of attention has a bias.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        dropout: float = 0.0,
        *,
        ff_channels: int | None = None,
        activation: str = "gelu",
        attention_dropout: float | None = None,
        hidden_dropout: float = 0.0,
        path_dropout: float = 0.0,
        norm: Norm = "layer",
        norm_first: bool = True,
        qkv_bias: bool = False,
        out_bias: bool = True,
    ) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"channels must be a multiple of heads, got {channels} and {heads}")
        self.heads = heads
        self.dropout = dropout
        self.attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.hidden_dropout = hidden_dropout
        self.path_dropout = path_dropout
        for name in ("dropout", "attention_dropout", "hidden_dropout", "path_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to less than 1, got {getattr(self, name)}")
        self.norm_first = norm_first
        width = 4 * channels if ff_channels is None else ff_channels
        self.norm1 = make_norm(norm, channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.out = nn.Linear(channels, channels, bias=out_bias)
        self.norm2 = make_norm(norm, channels)
        self.ff = nn.Sequential(nn.Linear(channels, width), activation_resolver(activation), nn.Linear(width, channels))

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for part in self.children():
            reset(part)

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        shown = [f"heads={self.heads}, dropout={self.dropout}"]
        if self.attention_dropout != self.dropout:
            shown.append(f"attention_dropout={self.attention_dropout}")
        shown += [f"{name}={getattr(self, name)}" for name in ("hidden_dropout", "path_dropout") if getattr(self, name)]
        return ", ".join(shown if self.norm_first else [*shown, "norm_first=False"])

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, :math:`(N, H, d_H)`."""
        query, key, value = self.qkv(x).view(x.size(0), 3, self.heads, -1).unbind(1)
        return query, key, value

    def dropout_of_attention(self) -> float:
        """Dropout probability of attention weights in the present mode."""
        return self.attention_dropout if self.training else 0.0

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward network."""
        first, activation, second = self.ff
        hidden: Tensor = F.dropout(activation(first(x)), self.hidden_dropout, self.training)
        return second(hidden)

    def drop(self, update: Tensor, blocks: Blocks) -> Tensor:
        """Drops numbers of an update, and whole updates of graphs."""
        update = F.dropout(update, self.dropout, self.training)
        if self.training and self.path_dropout:
            kept = torch.full((blocks.batch_size, 1), 1 - self.path_dropout, device=update.device).bernoulli()
            factor = (kept / (1 - self.path_dropout)).to(update.dtype)
            update = update * factor.index_select(0, blocks.vector(update.device))
        return update

    def update(self, x: Tensor, blocks: Blocks, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """Adds attention and feed-forward network."""
        if self.norm_first:
            x = x + self.drop(attend(self.norm1(x, blocks)), blocks)
            return x + self.drop(self.feed_forward(self.norm2(x, blocks)), blocks)
        x = self.norm1(x + self.drop(attend(x), blocks), blocks)
        normed: Tensor = self.norm2(x + self.drop(self.feed_forward(x), blocks), blocks)
        return normed
