"""Networks to evaluate, of DeepNets-1M or by name, built one at a time."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from torch import Tensor, nn

from ..families.deepnets.architecture import Architecture
from ..families.deepnets.architecture_sampling import PREDEFINED, SPLIT_SIZES
from ..families.deepnets.dataset import DeepNets, graph_with_architecture
from ..families.deepnets.genotype import DARTS, PDARTS
from ..families.deepnets.network import Network
from ..families.deepnets.network_plan import LARGE_IMAGES
from ..finetuning.state import add_statistics
from ..finetuning.train_network import first_output
from ..graph.arch_data import ArchData
from ..tracing.trace import from_module
from ..utils.suggest import printable, some
from ..zoo.build import build_network
from ..zoo.parse_name import parse_name
from ..zoo.small_images import adapt_to_small_inputs
from ..zoo.torchvision_models import build, check_name, classification_models

_GENOTYPES: Final[dict[str, Any]] = {
    "darts": Architecture(genotype=DARTS, cells=20), "pdarts": Architecture(genotype=PDARTS, cells=20),
    "vit": PREDEFINED["vit"],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network to evaluate.

    Args:
        name: Its name in the results.
        num_classes: Number of its classes.
        build: Builds the network, with the initial values of its constructor.
        graph: Returns the graph of the network.
    """

    name: str
    num_classes: int
    build: Callable[[], nn.Module]
    graph: Callable[[nn.Module], ArchData] = from_module


def deepnets_subjects(split: DeepNets) -> list[Subject]:
    """The architectures of a split of DeepNets-1M, or of a slice of one.

    Args:
        split: For example ``DeepNets("test", num_classes=10, image_size=16, width=8)[:20]``.

    Example:
        >>> [subject.name for subject in deepnets_subjects(DeepNets("deep", width=8)[3:5])]
        ['deep/3', 'deep/4']
    """

    def subject(position: int, index: int) -> Subject:
        def build_network() -> nn.Module:
            return Network(split[position].architecture, split.num_classes, split.image_size)

        return Subject(f"{split.split}/{index}", split.num_classes, build_network, lambda network: split[position])

    return [subject(position, index) for position, index in enumerate(split.indices())]


def torchvision_subjects(
    names: Iterable[str] | None = None, num_classes: int = 1000, image_size: int = 224
) -> list[Subject]:
    """Classification networks of torchvision, for small images in their versions for these.

    Args:
        names: Names of networks; by default all.
        num_classes: Number of classes.
        image_size: Height and width of the images in pixels. Up to 64, networks are adapted to them (see
            :func:`~ghn_pyg.zoo.small_images.adapt_to_small_inputs`); those without such a version fail when they are
            built.

    Raises:
        ValueError: If a name is unknown; similar names are suggested.

    Example:
        >>> torchvision_subjects(["resnet18"], 10, 32)[0].build().maxpool
        Identity()
    """
    names = classification_models() if names is None else list(names)
    for name in names:
        check_name(name)
    return [Subject(name, num_classes, functools.partial(_build, name, num_classes, image_size)) for name in names]


def _build(name: str, num_classes: int, image_size: int) -> nn.Module:
    network = build(name, num_classes=num_classes).eval()
    return network if image_size >= LARGE_IMAGES else adapt_to_small_inputs(network)


def named_subject(
    name: str, num_classes: int = 1000, image_size: int = 224, width: int = 32, auxiliary: bool = False
) -> Subject:
    """A network by name.

    Args:
        name: ``"darts"`` or ``"pdarts"`` (20 cells), ``"vit"`` (of DeepNets-1M), an index of a split of DeepNets-1M
            such as ``"test/3"``, or a name as for :func:`~ghn_pyg.zoo.build_network`. Networks of torchvision are those
            of :func:`torchvision_subjects`; others are as their library builds them.
        num_classes: Number of classes.
        image_size: Height and width of the images in pixels.
        width: Width of the networks of DeepNets-1M.
        auxiliary: Whether those of DeepNets-1M have an auxiliary classifier, which is not part of their graph.

    Raises:
        ValueError: If there is no such network. When it is built: if it cannot take the images or has other classes.
        ImportError: If its library is not installed.

    Example:
        >>> [named_subject(name, 10, 16, 8).build().num_classes for name in ("test/3", "darts")]
        [10, 10]
    """
    split, _, index = name.partition("/")
    graph: Any = None
    if split in SPLIT_SIZES and index.isdecimal():
        if int(index) >= SPLIT_SIZES[split]:
            raise ValueError(f"the split {split!r} has networks 0 to {SPLIT_SIZES[split] - 1}, got {index}")
        graph = DeepNets(split, num_classes=num_classes, image_size=image_size, width=width)[int(index)]
    elif name.lower() in _GENOTYPES:
        graph = graph_with_architecture(_GENOTYPES[name.lower()], num_classes, image_size)
    if graph is not None:
        build_it = functools.partial(Network, graph.architecture, num_classes, image_size, auxiliary=auxiliary)
        return Subject(name, num_classes, build_it, lambda network: graph)
    if parse_name(name).library == "torchvision":
        return torchvision_subjects([name], num_classes, image_size)[0]
    images = torch.zeros(1, 3, image_size, image_size)
    by_name = functools.partial(_build_by_name, name, num_classes, images)
    return Subject(name, num_classes, by_name, lambda network: from_module(network, images))


def _build_by_name(name: str, num_classes: int, images: Tensor) -> nn.Module:
    options = {} if name.startswith("module:") else {"num_classes": num_classes, "image_size": images.size(-1)}
    network = build_network(name, **options).network.eval()
    if dtypes := {each.dtype for each in network.parameters() if each.is_floating_point()} - {images.dtype}:
        raise ValueError(f"{name} expected parameters of {images.dtype}, got {dtypes.pop()}; convert it by .float()")
    try:
        with torch.no_grad():  # not in inference mode, where lazy layers would make parameters that cannot be written
            shape = tuple(first_output(network(images)).shape)
    except Exception as error:  # networks refuse images of another size in many ways
        raise ValueError(f"{name} cannot take images of {images.size(-1)} pixels: {error}") from error
    if shape != (1, num_classes):
        raise ValueError(f"{name} expected logits of shape (1, {num_classes}) for an image, got {shape}")
    return network


def trained_subject(
    name: str, weights: str | os.PathLike[str], num_classes: int, image_size: int, auxiliary: bool = False
) -> Subject:
    """A network by name with trained weights, as ``ghn-pyg finetune --out`` writes them."""
    subject = named_subject(name, num_classes, image_size, auxiliary=auxiliary)
    network = subject.build()
    try:
        add_statistics(network, load_file(weights))
        load_model(network, weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reasons = lines[1:] or lines  # a header, then one line for each tensor
        raise ValueError(
            f"{weights} holds no {name} for {num_classes} classes and images of {image_size} pixels: "
            + printable(some(reasons, limit=1), 300)
        ) from error
    return dataclasses.replace(subject, build=lambda: copy.deepcopy(network))
