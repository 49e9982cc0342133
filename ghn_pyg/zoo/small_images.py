"""Adapts torchvision's networks to small images, such as the 32×32 pixels of CIFAR-10."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torchvision import models
from torchvision.models.vgg import VGG

_KERNEL: Final = 3


class _Change(NamedTuple):
    """Submodules to change.

    Args:
        stem: The convolution to crop to the centre of its filters, with stride 1.
        strides: Where all convolutions get stride 1.
        pools: Which max-pools to remove. Other modules of these names are kept.
    """

    stem: str = ""
    strides: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()


_MOBILENET: Final = _Change(strides=tuple(f"features.{index}" for index in range(5)))
_CHANGES: Final[dict[type[nn.Module], _Change]] = {
    models.ResNet: _Change(stem="conv1", pools=("maxpool",)),
    models.DenseNet: _Change(stem="features.conv0", pools=("features.pool0",)),
    models.MobileNetV2: _MOBILENET,
    models.MobileNetV3: _MOBILENET,
    VGG: _Change(pools=tuple(f"features.{index}" for index in range(10))),
    models.AlexNet: _Change(strides=("features.0",), pools=("features.2",)),
    models.MNASNet: _Change(strides=("layers.0",)),
    models.ConvNeXt: _Change(strides=("features.0",)),
    models.ShuffleNetV2: _Change(strides=("conv1",), pools=("maxpool",)),
    models.GoogLeNet: _Change(strides=("conv1",), pools=("maxpool1",)),
}


def adapt_to_small_inputs(model: nn.Module) -> nn.Module:
    """Changes a torchvision network, in place, to keep enough resolution on images of about 32×32 pixels.

    ResNets and DenseNets get a 3×3 stem of stride 1, the centre of its filters, and no first max-pool. Other families
    lose strides and pools in their first layers. A second call changes nothing.

    Args:
        model: A network of torchvision's ResNet (ResNeXt, Wide ResNet), DenseNet, MobileNetV2 or V3, VGG, AlexNet,
            MNASNet, ConvNeXt, ShuffleNetV2 or GoogLeNet family, or of a subclass.

    Returns:
        ``model``.

    Raises:
        TypeError: If the network has no version for small images. It is not changed then.

    Example:
        >>> import torchvision
        >>> model = adapt_to_small_inputs(torchvision.models.resnet18(num_classes=10))
        >>> model.conv1
        Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """
    change = next((_CHANGES[base] for base in type(model).__mro__ if base in _CHANGES), None)
    if change is None:
        families = ", ".join(family.__name__ for family in _CHANGES)
        raise TypeError(f"{type(model).__name__} has no version for small inputs; expected one of {families}")
    if change.stem:
        _crop_to_centre(model.get_submodule(change.stem))
    for name in change.strides:
        for module in model.get_submodule(name).modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    for name in change.pools:
        if isinstance(model.get_submodule(name), nn.MaxPool2d):
            model.set_submodule(name, nn.Identity())
    return model


def _crop_to_centre(conv: Any) -> None:
    height, width = conv.kernel_size
    top, left = (height - _KERNEL) // 2, (width - _KERNEL) // 2
    with torch.no_grad():
        centre = conv.weight[:, :, top : top + _KERNEL, left : left + _KERNEL]
        conv.weight = nn.Parameter(centre.clone(), conv.weight.requires_grad)
    conv.kernel_size, conv.padding, conv.stride = (_KERNEL, _KERNEL), (_KERNEL // 2, _KERNEL // 2), (1, 1)
