"""Graph HyperNetworks on PyTorch Geometric: predict all parameters of a neural network in one forward pass."""

import lazy_loader

from .version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__path__.append(f"{__path__[0]}/deprecated")  # modules of before, under their old names
