from .attention import TableBias, add_biases, dense_attention, table_attention
from .attention_bias import DistanceBias, SpatialEncoding
from .blocks import Blocks
from .conv_encoder import ConvEncoder
from .decoders import ConvDecoder, MLPDecoder, VectorDecoder
from .edge_paths import EdgePathEncoding
from .gated_gnn import GatedGNN
from .ghn3_encoder import GHN3Encoder
from .gps import GPSLayer
from .gps_model import GPS
from .graphormer import GraphormerLayer, GraphToken, GraphTransformer
from .graphormer_model import Graphormer
from .grit import GRITLayer, RelativeWalkEncoding
from .node_encodings import CentralityEncoding, DepthEncoding, ShapeEncoding
from .node_mlp import NodeMLP
from .readouts import AttentionReadout, LastReadout, Readout, TokenReadout
from .sparse_attention import ExpanderTransformer, SparseGraphormerLayer, SparseTransformer
from .transformer_layer import TransformerLayer

__all__ = [
    "GPS",
    "AttentionReadout",
    "Blocks",
    "CentralityEncoding",
    "ConvDecoder",
    "ConvEncoder",
    "DepthEncoding",
    "DistanceBias",
    "EdgePathEncoding",
    "ExpanderTransformer",
    "GHN3Encoder",
    "GPSLayer",
    "GRITLayer",
    "GatedGNN",
    "GraphToken",
    "GraphTransformer",
    "Graphormer",
    "GraphormerLayer",
    "LastReadout",
    "MLPDecoder",
    "NodeMLP",
    "Readout",
    "RelativeWalkEncoding",
    "ShapeEncoding",
    "SparseGraphormerLayer",
    "SparseTransformer",
    "SpatialEncoding",
    "TableBias",
    "TokenReadout",
    "TransformerLayer",
    "VectorDecoder",
    "add_biases",
    "dense_attention",
    "table_attention",
]
