"""Builds networks of any library by name: torchvision, timm, Transformers, or a factory of the user."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from torch import nn

from ..utils.suggest import choice
from . import timm_models, torchvision_models, transformers_models, user_models
from .build_without_memory import without_memory
from .parse_name import parse_name

_NAMES: Final = {"torchvision": torchvision_models.names, "timm": timm_models.names, "hf": transformers_models.names}


class Built(NamedTuple):
    """A network, and example inputs if its factory returned some."""

    network: nn.Module
    example_inputs: Any = None


def build_network(source: str, **options: Any) -> Built:
    """Builds an untrained network. Nothing is downloaded.

    Args:
        source: One of

            - a name of torchvision, such as ``"resnet18"`` or ``"maskrcnn_resnet50_fpn"``,
            - ``"timm/NAME"``, with the extra ``timm``,
            - ``"hf/MODEL_TYPE"``, such as ``"hf/bert"``, for its default configuration, or ``"hf/PATH"`` of a
              configuration (a JSON file, or a folder with ``config.json``), with the extra ``transformers``;
              ``":CLASS"`` may follow,
            - ``"module:PACKAGE.MODULE:FACTORY"``, a function that returns a network, or a network and example inputs.
        options: Options of the network, such as ``num_classes=10``; networks of Transformers take no others than
            ``num_classes`` and ``image_size``, and the user's own factories none.

    Raises:
        ValueError: If there is no such network. The message suggests similar names.
        ImportError: If the library is not installed.

    Example:
        >>> build_network("resnet18", num_classes=7).network.fc
        Linear(in_features=512, out_features=7, bias=True)
    """
    library, name, target = parse_name(source)
    if library == "torchvision":
        return Built(torchvision_models.build(name, **options))
    if library == "timm":
        return Built(timm_models.build(name, **options))
    if library == "hf":
        return Built(transformers_models.build(name, target, **options))
    return Built(*user_models.build(name, target, **options))


def skeleton(source: str, **options: Any) -> Built:
    """Builds a network as :func:`build_network` does, but without memory for its large parameters.

    A graph needs no more: ``ghn.predict(from_module(*skeleton(source)))``. The user's own factories are called as they
    are, because they may load or compute values.

    Example:
        >>> network, example_inputs = skeleton("vit_h_14")
        >>> network.conv_proj.weight.device
        device(type='meta')
    """
    if parse_name(source).library == "module":
        return build_network(source, **options)
    return without_memory(lambda: build_network(source, **options))


def network_names(library: str) -> list[str]:
    """Lists the networks of a library by the names that :func:`build_network` takes.

    Args:
        library: ``"torchvision"``, ``"timm"`` or ``"hf"``.

    Raises:
        ValueError: If the library has another name.
        ImportError: If it is not installed.

    Example:
        >>> network_names("torchvision")[:2]
        ['alexnet', 'convnext_base']
    """
    if library not in _NAMES:
        raise ValueError(f"unknown library {library!r}{choice(library, _NAMES)}")
    prefix = "" if library == "torchvision" else f"{library}/"
    return [prefix + name for name in _NAMES[library]()]


def expand_patterns(sources: Iterable[str]) -> list[str]:
    """Replaces patterns such as ``"timm/vit_*"`` by the names that match, and drops duplicates.

    Raises:
        ValueError: If no network matches a pattern.
        ImportError: If its library is not installed.

    Example:
        >>> expand_patterns(["resnet1*", "alexnet", "alex*"])
        ['resnet101', 'resnet152', 'resnet18', 'alexnet']
    """
    names: list[str] = []
    for source in sources:
        if source.startswith("module:") or not re.search(r"[*?\[]", source):
            names.append(source)
            continue
        matching = fnmatch.filter(network_names(parse_name(source).library), source)
        if not matching:
            raise ValueError(f"no network matches {source!r}; `ghn-pyg models --networks` lists all names")
        names += matching
    return list(dict.fromkeys(names))
