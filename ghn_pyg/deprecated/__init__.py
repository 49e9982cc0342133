"""Former names of modules, found through ``ghn_pyg.__path__``. Importing one warns and gives today's module."""

import importlib
import sys
import warnings


def moved(old: str, new: str) -> None:
    """Replaces the module ``old`` by ``new``, with a ``DeprecationWarning``."""
    warnings.warn(f"{old} is deprecated; import {new} instead", DeprecationWarning, stacklevel=3)
    sys.modules[old] = importlib.import_module(new)
