"""Builds networks of torchvision by name."""

from __future__ import annotations

import inspect
from typing import Any, Final

import torchvision
from torch import nn

from ..utils.suggest import suggestion

# Their own initialisation takes minutes, and they warn if the choice is left open.
_SLOW_TO_INITIALISE: Final = ("googlenet", "inception_v3", "quantized_googlenet", "quantized_inception_v3")


def classification_models() -> list[str]:
    """Lists all classification networks of the installed torchvision, in alphabetical order.

    Example:
        >>> classification_models()[:3]
        ['alexnet', 'convnext_base', 'convnext_large']
    """
    return sorted(torchvision.models.list_models(module=torchvision.models))


def names() -> list[str]:
    """Lists all networks of the installed torchvision, also for detection, segmentation, video and optical flow.

    Example:
        >>> {"resnet18", "retinanet_resnet50_fpn", "deeplabv3_resnet50", "r3d_18", "raft_small"} <= set(names())
        True
    """
    return sorted(torchvision.models.list_models())


def check_name(name: str) -> None:
    """Checks that torchvision has a classification network of this name.

    Raises:
        ValueError: If there is no such network. The message suggests similar names.
    """
    _check(name, classification_models(), "classification network")


def build(name: str, **options: Any) -> nn.Module:
    """Builds an untrained network. Nothing is downloaded.

    Args:
        name: One of :func:`names`.
        options: Options of the network, such as ``num_classes=10``.

    Returns:
        The network with torchvision's initial values. GoogLeNet and Inception have their auxiliary heads.

    Raises:
        ValueError: If there is no such network. The message suggests similar names.

    Example:
        >>> build("resnet18", num_classes=7).fc.weight.shape
        torch.Size([7, 512])
    """
    _check(name, names(), "network")
    if "weights_backbone" in inspect.signature(torchvision.models.get_model_builder(name)).parameters:
        options.setdefault("weights_backbone", None)
    if name in _SLOW_TO_INITIALISE:
        options.setdefault("init_weights", False)
    return torchvision.models.get_model(name, weights=None, **options)


def _check(name: str, known: list[str], kind: str) -> None:
    if name not in known:
        hint = suggestion(str(name).replace("-", "_"), known) or "; `ghn-pyg models --networks` lists all names"
        raise ValueError(f"torchvision has no {kind} {name!r}{hint}")
