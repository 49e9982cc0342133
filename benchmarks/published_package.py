"""The published package ``ghn3``, to be measured in the same run; used only where it is installed.

This library does not depend on it, and its test suite runs without it: the functions below call what its README shows
(``Graph(model)``, ``from_pretrained(name)``, ``ghn(model)``) and nothing else. Where it is missing, or its checkpoints
cannot be had, benchmarks say so and go on. Predictions are compared as whole calls of ``ghn(model)``, each on a new
copy of the network, because the published package keeps notes on the network that it has seen.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from torch import nn


def missing() -> str | None:
    """Why the published package cannot be measured here; ``None`` where it can."""
    if importlib.util.find_spec("ghn3") is None:
        return "the published package ghn3 is not installed, so nothing is measured beside it"
    return None


def trace(model: nn.Module) -> Any:
    """Builds its graph of a network."""
    from ghn3 import Graph  # type: ignore[import-not-found]

    return Graph(model)


def load(name: str) -> Any:
    """Loads its GHN with published weights.

    Raises:
        OSError: If the weights cannot be had.
    """
    from ghn3 import from_pretrained

    return from_pretrained(f"{name}.pt")


def initialize(ghn: Any, model: nn.Module) -> nn.Module:
    """Traces a network and predicts its parameters in place."""
    return ghn(model)
