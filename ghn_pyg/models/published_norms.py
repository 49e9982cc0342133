"""Norms of predictions that were published with the checkpoints, to compare :meth:`Prediction.total_norm` with."""

from __future__ import annotations

import functools
import json
from importlib import resources


def published_norm(architecture: str, ghn_name: str) -> float | None:
    """The published L2 norm over all parameters that a GHN predicts for an architecture, to four decimals.

    Args:
        architecture: Name of a torchvision network, such as ``"resnet50"``.
        ghn_name: ``"ghn2"``, ``"ghn3tm8"`` or ``"ghn3xlm16"``.

    Returns:
        The norm, or ``None`` if none was published.

    Example:
        >>> published_norm("alexnet", "ghn3xlm16")
        72.4766
    """
    return _norms().get(architecture, {}).get(ghn_name)


@functools.cache
def _norms() -> dict[str, dict[str, float]]:
    return dict(json.loads(resources.files(__package__).joinpath("published_norms.json").read_text(encoding="utf-8")))
