"""Graph HyperNetworks on PyTorch Geometric: predict all parameters of a neural network in one forward pass."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .apply import batch_statistics, load_prediction, recalibrate
    from .caching.cache import GraphCache
    from .data import ArchData, ParamSpec
    from .graphs.layers import register_layer
    from .graphs.module import TracingError, from_module
    from .graphs.reasons import Kept, register_parameter
    from .graphs.report import Coverage, CoverageError, coverage
    from .models.config import PRESETS, GHNConfig
    from .models.encoders import register_encoder
    from .models.ghn import GHN
    from .models.keys import CheckpointError
    from .models.prediction import Prediction
    from .models.shards import predict_shards
    from .primitives import PRIMITIVES

    from_pretrained = GHN.from_pretrained

__all__ = [
    "GHN",
    "PRESETS",
    "PRIMITIVES",
    "ArchData",
    "CheckpointError",
    "Coverage",
    "CoverageError",
    "GHNConfig",
    "GraphCache",
    "Kept",
    "ParamSpec",
    "Prediction",
    "TracingError",
    "__version__",
    "batch_statistics",
    "coverage",
    "from_module",
    "from_pretrained",
    "load_prediction",
    "predict_shards",
    "recalibrate",
    "register_encoder",
    "register_layer",
    "register_parameter",
]

# Importing torch takes seconds, which the command line's --help and --version need not wait for.
_HOME = {
    "GHN": "models.ghn",
    "PRESETS": "models.config",
    "PRIMITIVES": "primitives",
    "ArchData": "data",
    "CheckpointError": "models.keys",
    "Coverage": "graphs.report",
    "CoverageError": "graphs.report",
    "GHNConfig": "models.config",
    "Kept": "graphs.reasons",
    "GraphCache": "caching.cache",
    "ParamSpec": "data",
    "Prediction": "models.prediction",
    "TracingError": "graphs.module",
    "batch_statistics": "apply",
    "coverage": "graphs.report",
    "from_module": "graphs.module",
    "load_prediction": "apply",
    "predict_shards": "models.shards",
    "recalibrate": "apply",
    "register_encoder": "models.encoders",
    "register_layer": "graphs.layers",
    "register_parameter": "graphs.reasons",
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
