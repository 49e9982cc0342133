"""Builds networks of timm by name."""

from __future__ import annotations

import contextlib
from typing import Any

from torch import nn

from ..utils.optional import require
from ..utils.suggest import suggestion


def names() -> list[str]:
    """Lists all networks of the installed timm, without the tags of pretrained weights.

    Raises:
        ImportError: If timm is not installed.
    """
    known: list[str] = _timm().list_models()
    return known


def build(name: str, image_size: int | None = None, pretrained: bool = False, **options: Any) -> nn.Module:
    """Builds a network. Unless it is ``pretrained``, nothing is downloaded.

    Args:
        name: One of :func:`names`. The tag of pretrained weights may follow, as in ``"resnet18.a1_in1k"``.
        image_size: Height and width of the images in pixels, for networks that are built for one size.
        pretrained: Whether to load the weights of timm.
        options: Options of the network, such as ``num_classes=10``.

    Raises:
        ValueError: If there is no such network. The message suggests similar names.
        ImportError: If timm is not installed.
    """
    timm, known = _timm(), names()
    if name not in known and name not in timm.list_models(include_tags=True):
        hint = suggestion(name.replace("-", "_"), known, "timm/") or "; `ghn-pyg models --networks` lists all names"
        raise ValueError(f"timm has no network {name!r}{hint}")
    network: nn.Module
    if image_size is not None:
        with contextlib.suppress(TypeError):  # most networks take images of any size, and no such argument
            network = timm.create_model(name, pretrained=pretrained, img_size=image_size, **options)
            return network
    network = timm.create_model(name, pretrained=pretrained, **options)
    return network


def _timm() -> Any:
    return require("timm", extra="timm", purpose="networks of timm")
