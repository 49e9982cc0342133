"""Warnings that are logged once."""

from __future__ import annotations

import functools
import logging


@functools.cache
def warn_once(message: str) -> None:
    """Logs a warning, the same one only once in a process: many networks can share one cause.

    Example:
        >>> warn_once("the GHN was trained for other images")
    """
    logging.getLogger("ghn_pyg").warning(message)
