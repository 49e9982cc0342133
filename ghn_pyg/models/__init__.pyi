from .apply import load_prediction
from .batch_norm import batch_statistics, recalibrate
from .config import PRESETS, GHNConfig
from .encoders import ENCODERS, register_encoder
from .ghn import GHN, from_pretrained
from .prediction import Prediction
from .published_norms import published_norm
from .sharded_prediction import predict_shards

__all__ = [
    "ENCODERS",
    "GHN",
    "PRESETS",
    "GHNConfig",
    "Prediction",
    "batch_statistics",
    "from_pretrained",
    "load_prediction",
    "predict_shards",
    "published_norm",
    "recalibrate",
    "register_encoder",
]
