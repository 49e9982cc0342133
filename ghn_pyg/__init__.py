"""Graph HyperNetworks on PyTorch Geometric: predict all parameters of a neural network in one forward pass."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .apply import batch_statistics, load_prediction, recalibrate
    from .data import ArchData, ParamSpec
    from .graphs.cache import GraphCache
    from .graphs.layers import register_layer
    from .graphs.module import TracingError, from_module
    from .models.config import PRESETS, GHNConfig
    from .models.encoders import register_encoder
    from .models.ghn import GHN, Prediction
    from .models.keys import CheckpointError
    from .primitives import PRIMITIVES

    from_pretrained = GHN.from_pretrained

__all__ = [
    "GHN",
    "PRESETS",
    "PRIMITIVES",
    "ArchData",
    "CheckpointError",
    "GHNConfig",
    "GraphCache",
    "ParamSpec",
    "Prediction",
    "TracingError",
    "__version__",
    "batch_statistics",
    "from_module",
    "from_pretrained",
    "load_prediction",
    "recalibrate",
    "register_encoder",
    "register_layer",
]

# Importing torch takes seconds, which the command line's --help and --version need not wait for.
_HOME = {
    "GHN": "models.ghn",
    "PRESETS": "models.config",
    "PRIMITIVES": "primitives",
    "ArchData": "data",
    "CheckpointError": "models.keys",
    "GHNConfig": "models.config",
    "GraphCache": "graphs.cache",
    "ParamSpec": "data",
    "Prediction": "models.ghn",
    "TracingError": "graphs.module",
    "batch_statistics": "apply",
    "from_module": "graphs.module",
    "load_prediction": "apply",
    "recalibrate": "apply",
    "register_encoder": "models.encoders",
    "register_layer": "graphs.layers",
}


def __getattr__(name: str) -> Any:
    if name == "from_pretrained":
        value = __getattr__("GHN").from_pretrained
    elif name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
