"""Figures published with the checkpoints."""

from __future__ import annotations

import functools
import json
from importlib import resources

__all__ = ["published_norm"]


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
