"""Packages of the extras, imported where they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports a module of an optional package.

    If that is not installed, the error names what needs it and the command that installs it.

    Example:
        >>> require("math", extra="plot", purpose="plots").sqrt(9)
        3.0
        >>> require("no_such_package", extra="plot", purpose="plots")
        Traceback (most recent call last):
        ImportError: plots need no_such_package; install it with: pip install "ghn_pyg[plot]"
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f'{purpose} need {package}; install it with: pip install "ghn_pyg[{extra}]"') from error
