"""Parses names of networks, such as ``timm/resnet18``. It imports no torch, so that typing errors show at once."""

from __future__ import annotations

import os
import re
from typing import Final, Literal, NamedTuple

from ..utils.suggest import similar

NAME_FORMS: Final = "a torchvision name, timm/NAME, hf/MODEL_TYPE, hf/CONFIG[:CLASS] or module:PACKAGE.MODULE:FACTORY"
"""The forms that the name of a network can have."""

_DOTTED: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_PREFIXES: Final = {"timm": "timm/", "hf": "hf/", "huggingface": "hf/", "transformers": "hf/", "torchvision": ""}


class NetworkName(NamedTuple):
    """The parts of a network's name.

    Args:
        library: ``"torchvision"``, ``"timm"``, ``"hf"`` (Transformers) or ``"module"`` (the user's own factory).
        name: The name in the library; the model type or path of a configuration; or the factory's module.
        target: The class of Transformers to build, if not the configuration's own; or the factory's function.
    """

    library: Literal["torchvision", "timm", "hf", "module"]
    name: str
    target: str = ""


def parse_name(text: str) -> NetworkName:
    """Splits the name of a network into its parts. It does not check that the network exists.

    Args:
        text: Such as ``"resnet18"``, ``"timm/resnet18"``, ``"hf/bert"``, ``"hf/folder/config.json"``,
            ``"hf/bert:BertForSequenceClassification"`` or ``"module:package.module:make"``.

    Raises:
        ValueError: If the text has none of these forms.

    Example:
        >>> parse_name("hf/bert:BertForSequenceClassification")
        NetworkName(library='hf', name='bert', target='BertForSequenceClassification')
    """
    if text.startswith("module:"):
        module, _, factory = text.removeprefix("module:").partition(":")
        if not _DOTTED.fullmatch(module) or not _DOTTED.fullmatch(factory):
            raise ValueError(f"expected module:PACKAGE.MODULE:FACTORY, such as module:models.small:make, got {text!r}")
        return NetworkName("module", module, factory)
    library, slash, name = text.partition("/")
    if library == "timm" and name:
        return NetworkName("timm", name)
    if library == "hf" and name:
        return _parse_transformers(name)
    if slash or not text or ":" in text:
        raise ValueError(f"expected {NAME_FORMS} as the name of a network, got {text!r}{_suggestion(text)}")
    return NetworkName("torchvision", text)


def _parse_transformers(name: str) -> NetworkName:
    cls = ""
    if ":" in name and not _exists(name):
        name, _, cls = name.rpartition(":")
        if not name or not cls.isidentifier():
            raise ValueError(f"expected hf/CONFIG:CLASS with a class of Transformers, got {f'hf/{name}:{cls}'!r}")
    looks_like_path = "/" in name or name.endswith(".json") or name.startswith((".", "~"))
    if looks_like_path and not _exists(name):
        raise ValueError(
            f"hf/{name}: the file or folder {name} does not exist; nothing is downloaded, so save the model's "
            "config.json and give its path, or use a model type such as hf/bert"
        )
    return NetworkName("hf", name, cls)


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _suggestion(text: str) -> str:
    library, _, name = text.partition("/")
    if _exists(text):
        return f"; did you mean hf/{text}?"
    if re.fullmatch(rf"{_DOTTED.pattern}:{_DOTTED.pattern}", text):
        return f"; did you mean module:{text}?"
    if near := similar(library, _PREFIXES):
        return f"; did you mean {_PREFIXES[near[0]]}{name}?"
    return ""
