"""torchvision's networks by name."""

from __future__ import annotations

import inspect
from typing import Any, Final

import torchvision
from torch import nn

from ..utils.suggest import suggestion
from .without_memory import without_memory

# Their own initialisation takes minutes without SciPy's help, and they warn when it is left open.
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "quantized_googlenet": {"init_weights": False},
    "quantized_inception_v3": {"init_weights": False},
}


def classification_models() -> list[str]:
    """Names of all classification networks of the installed torchvision, in alphabetical order.

    Example:
        >>> classification_models()[:3]
        ['alexnet', 'convnext_base', 'convnext_large']
    """
    return sorted(torchvision.models.list_models(module=torchvision.models))


def models() -> list[str]:
    """Names of all networks of the installed torchvision: for detection, segmentation, videos and optical flow too.

    Example:
        >>> {"resnet18", "retinanet_resnet50_fpn", "deeplabv3_resnet50", "r3d_18", "raft_small"} <= set(models())
        True
    """
    return sorted(torchvision.models.list_models())


def check_name(name: str) -> None:
    """Raises an error for a classification network that does not exist.

    Raises:
        ValueError: If there is no such network; near names are suggested.
    """
    _check(
        name,
        classification_models(),
        "classification network",
        "ghn_pyg.zoo.classification_models()",
    )


def build(name: str, **options: Any) -> nn.Module:
    """Builds an untrained network; nothing is downloaded.

    Args:
        name: One of :func:`models`.
        options: Options of the network, such as ``num_classes=10``.

    Returns:
        The network with torchvision's initial values; auxiliary heads are part of GoogLeNet and Inception.

    Raises:
        ValueError: If there is no such network; near names are suggested.

    Example:
        >>> build("resnet18", num_classes=7).fc.weight.shape
        torch.Size([7, 512])
    """
    _check(name, models(), "network", "ghn_pyg.zoo.torchvision_models.models()")
    takes = inspect.signature(torchvision.models.get_model_builder(name)).parameters
    defaults = {"weights_backbone": None} if "weights_backbone" in takes else {}
    return torchvision.models.get_model(name, weights=None, **{**defaults, **_OPTIONS.get(name, {}), **options})


def skeleton(name: str, **options: Any) -> nn.Module:
    """Builds a network whose large parameters have a shape but no memory, in milliseconds whatever its size.

    That is all that :func:`~ghn_pyg.from_module` needs, and so ``ghn.predict(from_module(skeleton(name)))`` too.

    Args:
        name: One of :func:`models`.
        options: Options of the network, such as ``num_classes=10``.

    Returns:
        The network; what its constructor would fill at random is on the meta device.

    Raises:
        ValueError: If there is no such network; near names are suggested.

    Example:
        >>> skeleton("vit_h_14").conv_proj.weight.device
        device(type='meta')
    """
    return without_memory(lambda: build(name, **options))


def _check(name: str, names: list[str], kind: str, source: str) -> None:
    if name not in names:
        lists = f"{source} and `ghn-pyg models --networks` list them"
        hint = suggestion(str(name).replace("-", "_"), names) or f"; expected one of its {len(names)}; {lists}"
        raise ValueError(f"torchvision has no {kind} {name!r}{hint}")
