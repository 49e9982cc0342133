"""Matplotlib, which only pictures need."""

from __future__ import annotations

import importlib
from typing import Any


def import_figure() -> Any:
    """Matplotlib's ``Figure``, which nothing else needs.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib; install it with: pip install "ghn_pyg[plot]"') from error
