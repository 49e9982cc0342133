"""Deprecated name of ``ghn_pyg.zoo.small_images``."""

from ghn_pyg.deprecated import moved

moved(__name__, "ghn_pyg.zoo.small_images")
