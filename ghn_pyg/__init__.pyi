from .graph import PRIMITIVES, ArchData, ParamSpec
from .models import (
    GHN,
    PRESETS,
    GHNConfig,
    Prediction,
    batch_statistics,
    from_pretrained,
    load_prediction,
    predict_shards,
    recalibrate,
    register_encoder,
)
from .models.checkpoints import CheckpointError
from .starts import inherit
from .tracing import (
    Coverage,
    CoverageError,
    Kept,
    TracingError,
    Verification,
    coverage,
    from_module,
    register_layer,
    register_parameter,
    verify,
)
from .version import __version__

__all__ = [
    "GHN",
    "PRESETS",
    "PRIMITIVES",
    "ArchData",
    "CheckpointError",
    "Coverage",
    "CoverageError",
    "GHNConfig",
    "Kept",
    "ParamSpec",
    "Prediction",
    "TracingError",
    "Verification",
    "__version__",
    "batch_statistics",
    "coverage",
    "from_module",
    "from_pretrained",
    "inherit",
    "load_prediction",
    "predict_shards",
    "recalibrate",
    "register_encoder",
    "register_layer",
    "register_parameter",
    "verify",
]
