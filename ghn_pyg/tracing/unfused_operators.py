"""Runs layers operator by operator, where PyTorch would take a single one for several layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Within this context no single operator computes several layers, as fused transformer and recurrent layers do."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with onednn(False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextlib.contextmanager
def onednn(enabled: bool) -> Iterator[None]:
    """Within this context PyTorch may, or may not, compute with oneDNN, which has recurrent layers as a whole."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = enabled  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before
