"""Former names of modules, on ``ghn_pyg.__path__``: importing one warns and gives the module of today."""

import importlib
import sys
import warnings


def moved(old: str, new: str) -> None:
    """Puts the module ``new`` in the place of ``old``, with a ``DeprecationWarning``."""
    warnings.warn(f"{old} is now {new}; the old name will go", DeprecationWarning, stacklevel=3)
    sys.modules[old] = importlib.import_module(new)
