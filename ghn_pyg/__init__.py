"""Graph HyperNetworks on PyTorch Geometric: predict all parameters of a neural network in one forward pass."""

from .data import ArchData
from .graphs.module import TracingError, from_module
from .models.config import GHNConfig
from .primitives import PRIMITIVES
from .version import __version__

__all__ = ["PRIMITIVES", "ArchData", "GHNConfig", "TracingError", "__version__", "from_module"]
