"""Graph encoders by name: what ``GHNConfig.encoder`` may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import nn
from torch_geometric.nn import MLP, GATv2Conv, GCNConv, GINConv, GINEConv, GPSConv, PNAConv

from ..nn.convolutions import ConvEncoder
from ..nn.gated import GatedGNN
from ..nn.ghn3 import GHN3Encoder
from ..nn.mlp import NodeMLP
from ..nn.sparse import SparseTransformer

if TYPE_CHECKING:
    from .config import GHNConfig

Builder = Callable[["GHNConfig"], nn.Module]


class EncoderKind(NamedTuple):
    """A graph encoder.

    Args:
        build: Makes it from a GHN's configuration.
        layers: Whether it has a number of layers.
        heads: Whether it has attention heads.
    """

    build: Builder
    layers: bool = True
    heads: bool = False


def register_encoder(name: str, build: Builder, *, layers: bool = True, heads: bool = False) -> None:
    r"""Makes an encoder known, so that a GHN can be configured with it, trained and loaded.

    It is called as ``encoder(x, edge_index, distance, batch)`` with nodes :math:`(N, d)`, edges :math:`(2, E)`,
    shortest-path distances flattened to :math:`(\sum_g N_g^2,)` and for each node its graph (``None`` for a single
    one), and gives nodes :math:`(N, d)`. :class:`~ghn_pyg.nn.ConvEncoder` makes one of any module of PyTorch
    Geometric.

    Args:
        name: What ``GHNConfig.encoder`` calls it.
        build: Makes it from the configuration, with ``config.hidden_channels``, ``config.layers`` and
            ``config.heads``.
        layers: Whether it has a number of layers, which then is at least 1.
        heads: Whether it has attention heads, which then are at least 1 and divide the width.

    Raises:
        ValueError: If there is an encoder of that name.

    Example:
        >>> from ghn_pyg import GHN, GHNConfig
        >>> from ghn_pyg.nn import ConvEncoder
        >>> from torch_geometric.nn import SAGEConv
        >>> def sage(config):
        ...     width = config.hidden_channels
        ...     return ConvEncoder(width, [SAGEConv(width, width) for _ in range(config.layers)])
        >>> register_encoder("sage", sage)
        >>> ghn = GHN(GHNConfig(encoder="sage", layers=2, heads=0))
    """
    if name in ENCODERS:
        raise ValueError(f"there is an encoder {name!r} already; choose another name")
    ENCODERS[name] = EncoderKind(build, layers, heads)


def _stack(config: GHNConfig, make: Callable[[int], nn.Module], *arguments: str) -> nn.Module:
    width = config.hidden_channels
    return ConvEncoder(width, [make(width) for _ in range(config.layers)], arguments or None)


def _mlp(width: int) -> nn.Module:
    return MLP([width, width, width], norm=None)


def _gcn(config: GHNConfig) -> nn.Module:
    """GCN (arXiv 1609.02907)."""
    return _stack(config, lambda width: GCNConv(width, width))


def _gin(config: GHNConfig) -> nn.Module:
    """GIN (arXiv 1810.00826)."""
    return _stack(config, lambda width: GINConv(_mlp(width)))


def _gine(config: GHNConfig) -> nn.Module:
    """GIN with edge features (arXiv 1905.12265)."""
    return _stack(config, lambda width: GINEConv(_mlp(width)))


def _gatv2(config: GHNConfig) -> nn.Module:
    """GATv2 (arXiv 2105.14491)."""
    heads = config.heads
    return _stack(config, lambda width: GATv2Conv(width, width // heads, heads, edge_dim=width))


_DEGREES: Final = (0, 13, 787, 108, 75, 14, 3)
"""Of 1,000 nodes of DeepNets-1M's training graphs, how many have 0, 1, … neighbours."""


def _pna(config: GHNConfig) -> nn.Module:
    """PNA (arXiv 2004.05718)."""
    mixes = (["mean", "min", "max", "std"], ["identity", "amplification", "attenuation"])
    degrees = torch.tensor(_DEGREES, device="cpu")
    return _stack(config, lambda width: PNAConv(width, width, *mixes, deg=degrees, edge_dim=width))


def _gps(config: GHNConfig) -> nn.Module:
    """GPS (arXiv 2205.12454) with GINE inside."""

    def make(width: int) -> nn.Module:
        return GPSConv(width, GINEConv(_mlp(width)), config.heads, norm=None)

    return _stack(config, make, "edge_index", "edge_attr", "batch")


ENCODERS: Final[dict[str, EncoderKind]] = {
    "ghn3": EncoderKind(lambda c: GHN3Encoder(c.hidden_channels, c.layers, c.heads), heads=True),
    "ghn2": EncoderKind(lambda c: GatedGNN(c.hidden_channels), layers=False),
    "ghn1": EncoderKind(lambda c: GatedGNN(c.hidden_channels, virtual_edges=False), layers=False),
    "mlp": EncoderKind(lambda c: NodeMLP(c.hidden_channels), layers=False),
    "gcn": EncoderKind(_gcn),
    "gin": EncoderKind(_gin),
    "gine": EncoderKind(_gine),
    "gatv2": EncoderKind(_gatv2, heads=True),
    "pna": EncoderKind(_pna),
    "gps": EncoderKind(_gps, heads=True),
    "exphormer": EncoderKind(lambda c: SparseTransformer(c.hidden_channels, c.layers, c.heads), heads=True),
}
"""Encoders by name; :func:`register_encoder` adds to them."""
