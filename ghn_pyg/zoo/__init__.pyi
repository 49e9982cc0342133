from .build import build_network, network_names, skeleton
from .build_without_memory import without_memory
from .small_images import adapt_to_small_inputs
from .torchvision_models import classification_models

__all__ = [
    "adapt_to_small_inputs",
    "build_network",
    "classification_models",
    "network_names",
    "skeleton",
    "without_memory",
]
