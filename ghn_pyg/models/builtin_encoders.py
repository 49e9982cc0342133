"""Builders of the graph encoders of this library, by name; each takes the width, the layers and the heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import nn
from torch_geometric.nn import MLP, GATv2Conv, GCNConv, GINConv, GINEConv, GPSConv, PNAConv

from ..nn.conv_encoder import ConvEncoder
from ..nn.gated_gnn import GatedGNN
from ..nn.ghn3_encoder import GHN3Encoder
from ..nn.node_mlp import NodeMLP
from ..nn.sparse_attention import SparseTransformer

_DEGREES: Final = (0, 13, 787, 108, 75, 14, 3)
"""Of 1,000 nodes of DeepNets-1M's training graphs, how many have 0, 1, … neighbours."""


def _stack(
    channels: int, layers: int, build: Callable[[], nn.Module], arguments: Sequence[str] | None = None
) -> nn.Module:
    return ConvEncoder(channels, [build() for _ in range(layers)], arguments)


def _mlp(channels: int) -> nn.Module:
    return MLP([channels] * 3, norm=None)


def _pna(channels: int) -> nn.Module:
    mixes = (["mean", "min", "max", "std"], ["identity", "amplification", "attenuation"])
    return PNAConv(channels, channels, *mixes, deg=torch.tensor(_DEGREES, device="cpu"), edge_dim=channels)


def _gps(channels: int, heads: int) -> nn.Module:
    return GPSConv(channels, GINEConv(_mlp(channels)), heads, norm=None)


BUILDERS: Final[dict[str, Callable[[int, int, int], nn.Module]]] = {
    "ghn3": GHN3Encoder,  # arXiv 2303.04143
    "ghn2": lambda c, layers, heads: GatedGNN(c),  # arXiv 2110.13100
    "ghn1": lambda c, layers, heads: GatedGNN(c, virtual_edges=False),  # arXiv 1810.05749
    "mlp": lambda c, layers, heads: NodeMLP(c),  # no graph; arXiv 2110.13100
    "exphormer": SparseTransformer,  # in the style of arXiv 2303.06147
    "gcn": lambda c, layers, heads: _stack(c, layers, lambda: GCNConv(c, c)),  # arXiv 1609.02907
    "gin": lambda c, layers, heads: _stack(c, layers, lambda: GINConv(_mlp(c))),  # arXiv 1810.00826
    "gine": lambda c, layers, heads: _stack(c, layers, lambda: GINEConv(_mlp(c))),  # arXiv 1905.12265
    "gatv2": lambda c, layers, heads: _stack(  # arXiv 2105.14491
        c, layers, lambda: GATv2Conv(c, c // heads, heads, edge_dim=c)
    ),
    "pna": lambda c, layers, heads: _stack(c, layers, lambda: _pna(c)),  # arXiv 2004.05718
    "gps": lambda c, layers, heads: _stack(  # arXiv 2205.12454
        c, layers, lambda: _gps(c, heads), ("edge_index", "edge_attr", "batch")
    ),
}
