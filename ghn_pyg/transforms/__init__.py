"""Transforms that add what attention over graphs needs: distances, paths and degrees."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
