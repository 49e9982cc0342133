"""Versions of torchvision's networks for small images, such as the 32×32 pixels of CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import torch
from torch import nn
from torchvision.models import (
    AlexNet,
    ConvNeXt,
    DenseNet,
    GoogLeNet,
    MNASNet,
    MobileNetV2,
    MobileNetV3,
    ResNet,
    ShuffleNetV2,
)
from torchvision.models.vgg import VGG

_KERNEL: Final = 3


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
    adapt = next((_ADAPT[base] for base in type(model).__mro__ if base in _ADAPT), None)
    if adapt is None:
        families = ", ".join(base.__name__ for base in _ADAPT)
        raise TypeError(f"{type(model).__name__} has no version for small inputs; expected one of {families}")
    adapt(model)
    return model


def _crop_stem(conv: nn.Conv2d) -> None:
    """Keeps the centre of the filters, with stride 1."""
    height, width = conv.kernel_size
    top, left = (height - _KERNEL) // 2, (width - _KERNEL) // 2
    with torch.no_grad():
        centre = conv.weight[:, :, top : top + _KERNEL, left : left + _KERNEL]
        conv.weight = nn.Parameter(centre.clone(), conv.weight.requires_grad)
    conv.kernel_size, conv.padding, conv.stride = (_KERNEL, _KERNEL), (_KERNEL // 2, _KERNEL // 2), (1, 1)


def _remove_strides(*parts: nn.Module) -> None:
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)


def _remove_pools(layers: nn.Sequential, stop: int) -> None:
    for index, layer in enumerate(layers[:stop]):
        if isinstance(layer, nn.MaxPool2d):
            layers[index] = nn.Identity()


def _resnet(model: ResNet) -> None:
    _crop_stem(model.conv1)
    model.maxpool = nn.Identity()


def _densenet(model: DenseNet) -> None:
    _crop_stem(cast(nn.Conv2d, model.features.conv0))
    model.features.pool0 = nn.Identity()


def _mobilenet(model: MobileNetV2 | MobileNetV3) -> None:
    _remove_strides(*model.features[:5])


def _vgg(model: VGG) -> None:
    _remove_pools(cast(nn.Sequential, model.features), 10)


def _alexnet(model: AlexNet) -> None:
    _remove_strides(model.features[0])
    _remove_pools(model.features, 3)


def _mnasnet(model: MNASNet) -> None:
    _remove_strides(model.layers[0])


def _convnext(model: ConvNeXt) -> None:
    _remove_strides(model.features[0])


def _shufflenet(model: ShuffleNetV2) -> None:
    _remove_strides(model.conv1)
    model.maxpool = nn.Identity()


def _googlenet(model: GoogLeNet) -> None:
    _remove_strides(model.conv1)
    model.maxpool1 = nn.Identity()


_ADAPT: Final[dict[type[nn.Module], Callable[..., None]]] = {
    ResNet: _resnet,
    DenseNet: _densenet,
    MobileNetV2: _mobilenet,
    MobileNetV3: _mobilenet,
    VGG: _vgg,
    AlexNet: _alexnet,
    MNASNet: _mnasnet,
    ConvNeXt: _convnext,
    ShuffleNetV2: _shufflenet,
    GoogLeNet: _googlenet,
}
