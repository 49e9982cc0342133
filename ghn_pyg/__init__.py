"""Graph HyperNetworks on PyTorch Geometric: predict all parameters of a neural network in one forward pass."""

from .apply import batch_statistics, load_prediction, recalibrate
from .data import ArchData, ParamSpec
from .graphs.layers import register_layer
from .graphs.module import TracingError, from_module
from .models.config import PRESETS, GHNConfig
from .models.ghn import GHN, Prediction
from .models.keys import CheckpointError
from .primitives import PRIMITIVES
from .version import __version__

from_pretrained = GHN.from_pretrained

__all__ = [
    "GHN",
    "PRESETS",
    "PRIMITIVES",
    "ArchData",
    "CheckpointError",
    "GHNConfig",
    "ParamSpec",
    "Prediction",
    "TracingError",
    "__version__",
    "batch_statistics",
    "from_module",
    "from_pretrained",
    "load_prediction",
    "recalibrate",
    "register_layer",
]
