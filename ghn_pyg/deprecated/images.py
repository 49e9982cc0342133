"""Deprecated name of ``ghn_pyg.data``."""

from ghn_pyg.deprecated import moved

moved(__name__, "ghn_pyg.data")
