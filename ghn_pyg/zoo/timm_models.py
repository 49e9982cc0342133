"""timm's networks by name."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from ..utils.suggest import suggestion


def names() -> list[str]:
    """Names of all networks of the installed timm, without those of their pretrained weights.

    Raises:
        ImportError: If timm is missing.
    """
    found: list[str] = _timm().list_models()
    return found


def make(name: str) -> nn.Module:
    """Builds an untrained network.

    Args:
        name: One of :func:`names`; the name of its pretrained weights may follow, as in ``"resnet18.a1_in1k"``.

    Raises:
        ValueError: If there is no such network; near names are suggested.
        ImportError: If timm is missing.
    """
    timm = _timm()
    known = names()
    if name not in known and name not in timm.list_models(include_tags=True):
        hint = suggestion(name.replace("-", "_"), known, "timm/") or (
            f"; expected one of its {len(known):,}; timm.list_models() and `ghn-pyg models --networks` list them"
        )
        raise ValueError(f"timm has no network {name!r}{hint}")
    network: nn.Module = timm.create_model(name, pretrained=False)
    return network


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImportError('networks of timm need timm; install it with: pip install "ghn_pyg[timm]"') from error
