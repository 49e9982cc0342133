from .build import build_network, network_names, skeleton
from .small_images import adapt_to_small_inputs
from .torchvision_models import classification_models
from .without_memory import EmptyOnMeta, without_memory

__all__ = [
    "EmptyOnMeta",
    "adapt_to_small_inputs",
    "build_network",
    "classification_models",
    "network_names",
    "skeleton",
    "without_memory",
]
