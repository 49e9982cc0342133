"""Why parameters are kept."""

from __future__ import annotations

from typing import Final

DELIBERATE: Final[frozenset[str]] = frozenset()
"""Reasons of parameters that are kept on purpose: the networks that GHNs are trained on have no counterpart of them."""
