"""Deprecated name of ``ghn_pyg.data.images``."""

from ghn_pyg.deprecated import moved

moved(__name__, "ghn_pyg.data.images")
