from .config import FitConfig
from .initial_weights import start_from
from .noise import add_noise, orthogonalize
from .state import Epoch
from .train_network import check_fit, fit

__all__ = ["Epoch", "FitConfig", "add_noise", "check_fit", "fit", "orthogonalize", "start_from"]
