"""Deprecated name of ``ghn_pyg.zoo``."""
