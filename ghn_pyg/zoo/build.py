"""Networks by name, from any library."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from torch import nn

from . import timm_models, user_models
from . import torchvision_models as vision
from . import transformers_models as hf_models
from .names import Source, is_pattern, parse_source
from .without_memory import without_memory


class Built(NamedTuple):
    """A network, and example inputs where whoever made it gave some."""

    network: nn.Module
    example_inputs: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Library:
    """Where networks come from.

    Args:
        prefix: What stands before their names.
        names: Lists them.
        build: Makes one.
    """

    prefix: str
    names: Callable[[], list[str]]
    build: Callable[[Source], Built]


_LIBRARIES: Final[dict[str, _Library]] = {
    "torchvision": _Library("", vision.models, lambda source: Built(vision.build(source.name))),
    "timm": _Library("timm/", timm_models.names, lambda source: Built(timm_models.make(source.name))),
    "hf": _Library("hf/", hf_models.names, lambda source: Built(hf_models.make(source.name, source.part))),
    "module": _Library("module:", list, lambda source: Built(*user_models.make(source.name, source.part))),
}


def build_network(source: str) -> Built:
    """Builds an untrained network; nothing is downloaded.

    Args:
        source: One of

            - a name of torchvision, such as ``"resnet18"`` or ``"maskrcnn_resnet50_fpn"``,
            - ``"timm/NAME"``, with the extra ``timm``,
            - ``"hf/MODEL_TYPE"``, such as ``"hf/bert"``, for its default configuration, or ``"hf/PATH"`` of a
              configuration (a JSON file, or a folder with ``config.json``), either with ``":CLASS"`` behind it, with
              the extra ``transformers``,
            - ``"module:PACKAGE.MODULE:FACTORY"``, a function that returns the network, or it and example inputs.

    Returns:
        The network and its example inputs, if there are some.

    Raises:
        ValueError: If there is no such network; near names are suggested.
        ImportError: If the library is missing.

    Example:
        >>> type(build_network("resnet18").network)
        <class 'torchvision.models.resnet.ResNet'>
    """
    parsed = parse_source(source)
    return _LIBRARIES[parsed.library].build(parsed)


def skeleton(source: str) -> Built:
    """Like :func:`build_network`, but large parameters have a shape and no memory, where the library admits it.

    That is all that :func:`~ghn_pyg.from_module` needs, and so ``ghn.predict(from_module(*skeleton(source)))`` too.
    A function of one's own is called as it is, for it may load or compute with what it makes.

    Example:
        >>> network, example_inputs = skeleton("vit_h_14")
        >>> network.conv_proj.weight.device
        device(type='meta')
    """
    if parse_source(source).library == "module":
        return build_network(source)
    return without_memory(lambda: build_network(source))


def network_names(library: str) -> list[str]:
    """The networks of a library as :func:`build_network` takes them.

    Args:
        library: ``"torchvision"``, ``"timm"`` or ``"hf"``.

    Raises:
        ImportError: If it is missing.

    Example:
        >>> network_names("torchvision")[:2]
        ['alexnet', 'convnext_base']
    """
    found = _LIBRARIES[library]
    return [found.prefix + name for name in found.names()]


def expand(sources: Iterable[str]) -> list[str]:
    """Puts the names that match for patterns such as ``"timm/vit_*"`` or ``"resnet*"``; drops repeats.

    Raises:
        ValueError: If nothing matches a pattern.
        ImportError: If its library is missing.

    Example:
        >>> expand(["resnet1*", "alexnet", "alex*"])
        ['resnet101', 'resnet152', 'resnet18', 'alexnet']
    """
    found: list[str] = []
    for source in sources:
        if not is_pattern(source):
            found.append(source)
            continue
        known = network_names(parse_source(source).library)
        matching = fnmatch.filter(known, source)
        if not matching:
            raise ValueError(f"no network matches {source!r}; `ghn-pyg models --networks` lists them")
        found += matching
    return list(dict.fromkeys(found))
