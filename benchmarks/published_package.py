"""Calls of the published package ``ghn3``, which is measured in the same run where it is installed.

Only the interface of its README is used: ``Graph(model)``, ``from_pretrained(name)`` and ``ghn(model)``. Where the
package or its checkpoints are missing, benchmarks print a note and continue. Predictions are compared as whole calls of
``ghn(model)``, each on a new copy of the network, because the published package stores attributes on the network.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from torch import nn


def missing() -> str | None:
    """Why the published package cannot be measured; ``None`` if it can."""
    if importlib.util.find_spec("ghn3") is None:
        return "the published package ghn3 is not installed, so it is not measured"
    return None


def trace(model: nn.Module) -> Any:
    """Builds the graph of a network."""
    from ghn3 import Graph  # type: ignore[import-not-found]

    return Graph(model)


def load(name: str) -> Any:
    """Loads a GHN with published weights.

    Raises:
        OSError: If the weights are not available.
    """
    from ghn3 import from_pretrained

    return from_pretrained(f"{name}.pt")


def initialize(ghn: Any, model: nn.Module) -> nn.Module:
    """Traces a network and predicts its parameters in place."""
    return ghn(model)
