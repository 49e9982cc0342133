"""Graph HyperNetworks on PyTorch Geometric: predict all parameters of a neural network in one forward pass."""

from .apply import batch_statistics, load_prediction, recalibrate
from .data import ArchData, ParamSpec
from .graphs.layers import register_layer
from .graphs.module import TracingError, from_module
from .models.config import PRESETS, GHNConfig
from .models.ghn import GHN, Prediction
from .primitives import PRIMITIVES
from .version import __version__

__all__ = [
    "GHN",
    "PRESETS",
    "PRIMITIVES",
    "ArchData",
    "GHNConfig",
    "ParamSpec",
    "Prediction",
    "TracingError",
    "__version__",
    "batch_statistics",
    "from_module",
    "load_prediction",
    "recalibrate",
    "register_layer",
]
