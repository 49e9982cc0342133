"""Layers that know tensors only: attention biases, Graphormer layers, encoders, readouts, decoders."""

from .attention import TableBias, add_biases, dense_attention, table_attention
from .bias import DistanceBias, EdgePathEncoding, SpatialEncoding
from .convolutions import ConvEncoder
from .decoders import ConvDecoder, MLPDecoder, VectorDecoder
from .encodings import CentralityEncoding, DepthEncoding, ShapeEncoding
from .gated import GatedGNN
from .ghn3 import GHN3Encoder
from .graphormer import GraphormerLayer, GraphToken, GraphTransformer
from .mlp import NodeMLP
from .ragged import Blocks
from .readouts import AttentionReadout, LastReadout, Readout, TokenReadout
from .sparse import SparseGraphormerLayer, SparseTransformer

__all__ = [
    "AttentionReadout",
    "Blocks",
    "CentralityEncoding",
    "ConvDecoder",
    "ConvEncoder",
    "DepthEncoding",
    "DistanceBias",
    "EdgePathEncoding",
    "GHN3Encoder",
    "GatedGNN",
    "GraphToken",
    "GraphTransformer",
    "GraphormerLayer",
    "LastReadout",
    "MLPDecoder",
    "NodeMLP",
    "Readout",
    "ShapeEncoding",
    "SparseGraphormerLayer",
    "SparseTransformer",
    "SpatialEncoding",
    "TableBias",
    "TokenReadout",
    "VectorDecoder",
    "add_biases",
    "dense_attention",
    "table_attention",
]
