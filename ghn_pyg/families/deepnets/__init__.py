"""DeepNets-1M: the distribution of training architectures (GHN-2, arXiv 2110.13100, section 4)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
