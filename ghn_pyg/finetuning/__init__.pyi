from .config import FitConfig
from .initial_weights import start_from
from .noise import add_noise, orthogonalize
from .pretrained_weights import load_pretrained
from .saved_network import NetworkInfo, read_info, save_network
from .state import Epoch
from .train_network import check_fit, fit

__all__ = [
    "Epoch",
    "FitConfig",
    "NetworkInfo",
    "add_noise",
    "check_fit",
    "fit",
    "load_pretrained",
    "orthogonalize",
    "read_info",
    "save_network",
    "start_from",
]
