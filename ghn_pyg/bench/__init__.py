"""Comparison of graph encoders: parameter and property prediction, graph regression, speed and memory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
