"""Makes the graph encoders of this library from a GHN's configuration; the names are those of ``ENCODERS``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch_geometric.nn import MLP, GATv2Conv, GCNConv, GINConv, GINEConv, GPSConv, PNAConv

from ..nn.conv_encoder import ConvEncoder
from ..nn.gated_gnn import GatedGNN
from ..nn.ghn3_encoder import GHN3Encoder
from ..nn.node_mlp import NodeMLP
from ..nn.sparse_attention import SparseTransformer
from .encoders import ENCODERS

if TYPE_CHECKING:
    from .config import GHNConfig


def build_encoder(config: GHNConfig) -> nn.Module:
    """The encoder of a configuration, of this library or registered.

    Raises:
        ValueError: If a checkpoint could not hold it, or it is not called as encoders are.
    """
    encoder = ENCODERS[config.encoder].build(config)
    names: dict[int, str] = {}
    for name, tensor in encoder.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point():
            raise ValueError(
                f"the encoder {config.encoder!r} keeps {tensor.dtype} in {name}, which checkpoints do not hold: "
                "register the buffer with persistent=False, and use no batch norms, which mix the graphs of a batch"
            )
        if (other := names.setdefault(id(tensor), name)) != name:
            raise ValueError(
                f"{other} and {name} of the encoder {config.encoder!r} are the same tensor; give each layer its own"
            )
    try:
        inspect.signature(encoder.forward).bind("x", "edge_index", "distance", "batch")
    except TypeError as error:
        raise ValueError(
            f"the encoder {config.encoder!r} expected to be called as encoder(x, edge_index, distance, batch), and its "
            f"forward does not take that ({error}); ConvEncoder makes an encoder of modules with (x, edge_index, …)"
        ) from error
    return encoder


def ghn3(config: GHNConfig) -> nn.Module:
    """GHN-3 (arXiv 2303.04143)."""
    return GHN3Encoder(config.hidden_channels, config.layers, config.heads)


def ghn2(config: GHNConfig) -> nn.Module:
    """GHN-2 (arXiv 2110.13100)."""
    return GatedGNN(config.hidden_channels)


def ghn1(config: GHNConfig) -> nn.Module:
    """GHN-1 (arXiv 1810.05749)."""
    return GatedGNN(config.hidden_channels, virtual_edges=False)


def mlp(config: GHNConfig) -> nn.Module:
    """The baseline without a graph (arXiv 2110.13100)."""
    return NodeMLP(config.hidden_channels)


def exphormer(config: GHNConfig) -> nn.Module:
    """Sparse attention in the style of Exphormer (arXiv 2303.06147)."""
    return SparseTransformer(config.hidden_channels, config.layers, config.heads)


def _stack(config: GHNConfig, make: Callable[[int], nn.Module], *arguments: str) -> nn.Module:
    width = config.hidden_channels
    return ConvEncoder(width, [make(width) for _ in range(config.layers)], arguments or None)


def _mlp(width: int) -> nn.Module:
    return MLP([width, width, width], norm=None)


def gcn(config: GHNConfig) -> nn.Module:
    """GCN (arXiv 1609.02907)."""
    return _stack(config, lambda width: GCNConv(width, width))


def gin(config: GHNConfig) -> nn.Module:
    """GIN (arXiv 1810.00826)."""
    return _stack(config, lambda width: GINConv(_mlp(width)))


def gine(config: GHNConfig) -> nn.Module:
    """GIN with edge features (arXiv 1905.12265)."""
    return _stack(config, lambda width: GINEConv(_mlp(width)))


def gatv2(config: GHNConfig) -> nn.Module:
    """GATv2 (arXiv 2105.14491)."""
    heads = config.heads
    return _stack(config, lambda width: GATv2Conv(width, width // heads, heads, edge_dim=width))


_DEGREES: Final = (0, 13, 787, 108, 75, 14, 3)
"""Of 1,000 nodes of DeepNets-1M's training graphs, how many have 0, 1, … neighbours."""


def pna(config: GHNConfig) -> nn.Module:
    """PNA (arXiv 2004.05718)."""
    mixes = (["mean", "min", "max", "std"], ["identity", "amplification", "attenuation"])
    degrees = torch.tensor(_DEGREES, device="cpu")
    return _stack(config, lambda width: PNAConv(width, width, *mixes, deg=degrees, edge_dim=width))


def gps(config: GHNConfig) -> nn.Module:
    """GPS (arXiv 2205.12454) with GINE inside."""

    def make(width: int) -> nn.Module:
        return GPSConv(width, GINEConv(_mlp(width)), config.heads, norm=None)

    return _stack(config, make, "edge_index", "edge_attr", "batch")
