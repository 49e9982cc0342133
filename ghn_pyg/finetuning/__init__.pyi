from .config import FitConfig
from .diversify import add_noise, orthogonalize
from .init import start_from
from .train_network import Epoch, fit

__all__ = ["Epoch", "FitConfig", "add_noise", "fit", "orthogonalize", "start_from"]
