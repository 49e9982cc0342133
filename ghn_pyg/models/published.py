"""Figures published with the checkpoints."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Final

__all__ = ["RESULTS_FILE", "RESULTS_MD5", "published_norm"]

RESULTS_FILE: Final = "ghn3_results.json"
"""File of the hub's repository with the full results."""

RESULTS_MD5: Final = "c9ffc3b9222e872af316eb1cb1ee1c08"


def published_norm(architecture: str, ghn_name: str) -> float | None:
    """The published total norm of all parameters that a GHN predicts for an architecture.

    Args:
        architecture: Name of a torchvision network, such as ``"resnet50"``.
        ghn_name: ``"ghn2"``, ``"ghn3tm8"`` or ``"ghn3xlm16"``.

    Returns:
        The L2 norm over all predicted parameters together, to four decimals, or ``None`` if none was published.

    Example:
        >>> published_norm("alexnet", "ghn3xlm16")
        72.4766
    """
    return _norms().get(architecture, {}).get(ghn_name)


@functools.cache
def _norms() -> dict[str, dict[str, float]]:
    text = resources.files(__package__).joinpath("published_norms.json").read_text(encoding="utf-8")
    norms: dict[str, dict[str, float]] = json.loads(text)
    return norms
