"""Builds the graph encoders of this library; the functions have the names of ``ENCODERS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn
from torch_geometric.nn import MLP, GATv2Conv, GCNConv, GINConv, GINEConv, GPSConv, PNAConv

from ..nn.convolutions import ConvEncoder
from ..nn.gated import GatedGNN
from ..nn.ghn3 import GHN3Encoder
from ..nn.mlp import NodeMLP
from ..nn.sparse import SparseTransformer

_DEGREES: Final = (0, 13, 787, 108, 75, 14, 3)
"""Of 1,000 nodes of DeepNets-1M's training graphs, how many have 0, 1, … neighbours."""


def ghn3(channels: int, layers: int, heads: int) -> nn.Module:
    """GHN-3 (arXiv 2303.04143)."""
    return GHN3Encoder(channels, layers, heads)


def ghn2(channels: int, *_: Any) -> nn.Module:
    """GHN-2 (arXiv 2110.13100)."""
    return GatedGNN(channels)


def ghn1(channels: int, *_: Any) -> nn.Module:
    """GHN-1 (arXiv 1810.05749)."""
    return GatedGNN(channels, virtual_edges=False)


def mlp(channels: int, *_: Any) -> nn.Module:
    """The baseline without a graph (arXiv 2110.13100)."""
    return NodeMLP(channels)


def exphormer(channels: int, layers: int, heads: int) -> nn.Module:
    """Sparse attention in the style of Exphormer (arXiv 2303.06147)."""
    return SparseTransformer(channels, layers, heads)


def gcn(channels: int, layers: int, heads: int) -> nn.Module:
    """GCN (arXiv 1609.02907)."""
    return _stack(channels, layers, lambda: GCNConv(channels, channels))


def gin(channels: int, layers: int, heads: int) -> nn.Module:
    """GIN (arXiv 1810.00826)."""
    return _stack(channels, layers, lambda: GINConv(_two_layers(channels)))


def gine(channels: int, layers: int, heads: int) -> nn.Module:
    """GIN with edge features (arXiv 1905.12265)."""
    return _stack(channels, layers, lambda: GINEConv(_two_layers(channels)))


def gatv2(channels: int, layers: int, heads: int) -> nn.Module:
    """GATv2 (arXiv 2105.14491)."""
    return _stack(channels, layers, lambda: GATv2Conv(channels, channels // heads, heads, edge_dim=channels))


def pna(channels: int, layers: int, heads: int) -> nn.Module:
    """PNA (arXiv 2004.05718)."""
    mixes = (["mean", "min", "max", "std"], ["identity", "amplification", "attenuation"])
    degrees = torch.tensor(_DEGREES, device="cpu")
    return _stack(channels, layers, lambda: PNAConv(channels, channels, *mixes, deg=degrees, edge_dim=channels))


def gps(channels: int, layers: int, heads: int) -> nn.Module:
    """GPS (arXiv 2205.12454) with GINE inside."""

    def build() -> nn.Module:
        return GPSConv(channels, GINEConv(_two_layers(channels)), heads, norm=None)

    return _stack(channels, layers, build, ("edge_index", "edge_attr", "batch"))


def _two_layers(channels: int) -> nn.Module:
    return MLP([channels] * 3, norm=None)


def _stack(
    channels: int, layers: int, build: Callable[[], nn.Module], arguments: tuple[str, ...] | None = None
) -> nn.Module:
    return ConvEncoder(channels, [build() for _ in range(layers)], arguments)
