"""torchvision's classification networks by name."""

from __future__ import annotations

from typing import Any, Final

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from .naming import similar

# Their own initialisation takes minutes without SciPy's help, and they warn when it is left open.
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
}


def classification_models() -> list[str]:
    """Names of all classification networks of the installed torchvision, in alphabetical order.

    Example:
        >>> classification_models()[:3]
        ['alexnet', 'convnext_base', 'convnext_large']
    """
    return sorted(torchvision.models.list_models(module=torchvision.models))


def check_name(name: str) -> None:
    """Raises the errors of :func:`build` for a network that does not exist."""
    names = classification_models()
    if name not in names:
        near = similar(str(name).replace("-", "_"), names)
        lists = "ghn_pyg.vision.classification_models() and `ghn-pyg models --networks` list them"
        hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of its {len(names)}; {lists}"
        raise ValueError(f"torchvision has no classification network {name!r}; {hint}")


def build(name: str, **options: Any) -> nn.Module:
    """Builds an untrained classification network.

    Args:
        name: One of :func:`classification_models`.
        options: Options of the network, such as ``num_classes=10``.

    Returns:
        The network with torchvision's initial values; auxiliary heads are part of GoogLeNet and Inception.

    Raises:
        ValueError: If there is no such network; near names are suggested.

    Example:
        >>> build("resnet18", num_classes=7).fc.weight.shape
        torch.Size([7, 512])
    """
    check_name(name)
    return torchvision.models.get_model(name, weights=None, **{**_OPTIONS.get(name, {}), **options})


def skeleton(name: str, **options: Any) -> nn.Module:
    """Builds a network whose large parameters have a shape but no memory, in milliseconds whatever its size.

    That is all that :func:`~ghn_pyg.from_module` needs, and so ``ghn.predict(from_module(skeleton(name)))`` too.

    Args:
        name: One of :func:`classification_models`.
        options: Options of the network, such as ``num_classes=10``.

    Returns:
        The network; what its constructor would fill at random is on the meta device.

    Raises:
        ValueError: If there is no such network; near names are suggested.

    Example:
        >>> skeleton("vit_h_14").conv_proj.weight.device
        device(type='meta')
    """
    with _EmptyOnMeta():
        return build(name, **options)


class _EmptyOnMeta(TorchFunctionMode):
    """Moves tensors that are made without values to the meta device.

    ``with torch.device("meta")`` moves all, and RegNets compute their widths with tensors in their constructor.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **({**kwargs, "device": "meta"} if func is torch.empty else kwargs))
