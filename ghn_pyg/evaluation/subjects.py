"""What is evaluated: networks of DeepNets-1M and of torchvision, made one at a time."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from ..families.deepnets import LARGE_IMAGES, DeepNets, Network
from ..graph.arch_data import ArchData
from ..tracing.trace import from_module
from ..utils.suggest import some
from ..zoo.small_images import adapt_to_small_inputs
from ..zoo.torchvision_models import build, check_name, classification_models


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network to evaluate.

    Args:
        name: Its name in the results.
        num_classes: Number of its classes.
        build: Makes the network, with the initial values of its constructor.
        graph: Makes its graph from the network.
    """

    name: str
    num_classes: int
    build: Callable[[], nn.Module]
    graph: Callable[[nn.Module], ArchData] = from_module


def deepnets_subjects(split: DeepNets) -> list[Subject]:
    """The architectures of a split, or of a slice of one.

    Args:
        split: Such as ``DeepNets("test", num_classes=10, image_size=16, width=8)[:20]``.

    Example:
        >>> [subject.name for subject in deepnets_subjects(DeepNets("deep", width=8)[3:5])]
        ['deep/3', 'deep/4']
    """

    def subject(position: int, index: int) -> Subject:
        def build_network() -> nn.Module:
            return Network(split[position].architecture, split.num_classes, split.image_size)

        return Subject(f"{split.split}/{index}", split.num_classes, build_network, lambda _: split[position])

    return [subject(position, index) for position, index in enumerate(split.indices())]


def trained_subject(name: str, weights: str | os.PathLike[str], num_classes: int, image_size: int) -> Subject:
    """A network of torchvision with the state dict of a file, such as ``ghn-pyg finetune --out`` writes.

    Args:
        name: The network.
        weights: A safetensors file.
        num_classes: Number of classes.
        image_size: Height and width of the images; see :func:`torchvision_subjects`.

    Raises:
        ValueError: If there is no such network or file, or the file is not of the network.

    Example:
        >>> trained_subject("resnet18", "network.safetensors", 10, 16).build()  # doctest: +SKIP
    """
    (subject,) = torchvision_subjects([name], num_classes, image_size)

    def build_network() -> nn.Module:
        network = subject.build()
        try:
            load_model(network, weights)
        except (OSError, SafetensorError, RuntimeError) as error:
            lines = [line.strip() for line in str(error).splitlines()]
            reasons = lines[1:] or lines  # below a head, a line for each tensor
            raise ValueError(
                f"{weights} holds no {name} for {num_classes} classes and images of {image_size} pixels: "
                + some(reasons, limit=1)
            ) from error
        return network

    build_network()  # what does not fit shows now
    return dataclasses.replace(subject, build=build_network)


def torchvision_subjects(
    names: Iterable[str] | None = None, num_classes: int = 1000, image_size: int = 224
) -> list[Subject]:
    """Classification networks of torchvision, on small images in their versions for them.

    Args:
        names: Which; by default all.
        num_classes: Number of classes.
        image_size: Height and width of the images in pixels; up to 64 the networks are adapted to them (see
            :func:`~ghn_pyg.zoo.small_images.adapt_to_small_inputs`), and those that cannot be fail when they are built.

    Raises:
        ValueError: If there is no network of a name; near names are suggested.

    Example:
        >>> torchvision_subjects(["resnet18"], 10, 32)[0].build().maxpool
        Identity()
    """
    chosen = classification_models() if names is None else list(names)

    def subject(name: str) -> Subject:
        def build_network() -> nn.Module:
            network = build(name, num_classes=num_classes).eval()
            return network if image_size >= LARGE_IMAGES else adapt_to_small_inputs(network)

        return Subject(name, num_classes, build_network)

    for name in chosen:
        check_name(name)
    return [subject(name) for name in chosen]
