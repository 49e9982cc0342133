"""Deprecated name of ``ghn_pyg.families.deepnets``."""

from ghn_pyg.deprecated import moved

moved(__name__, "ghn_pyg.families.deepnets")
