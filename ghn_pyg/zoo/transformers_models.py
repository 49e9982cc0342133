"""Builds networks of Transformers by model type, or from a configuration on disk. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import constants
from torch import nn

from ..utils.memory_guard import CheckedLayers
from ..utils.optional import require
from ..utils.suggest import printable, suggestion

_NOT_NETWORKS: Final = ("Config", "Tokenizer", "TokenizerFast", "Processor", "ProcessorFast", "Extractor")


_REQUESTS: Final = ("attn_implementation", "experts_implementation", "auto_map", "checkpoint_path")
"""Fields of a configuration that may name files or code of others."""

_OFFLINE: Final = threading.RLock()

_MAX_SIZE: Final = 1 << 24
"""Larger integers of a configuration are no sizes: a list of one item for each would take seconds."""

_MAX_ELEMENTS: Final = 1 << 40
_MAX_CALLS: Final = 60_000
"""Calls of PyTorch that build a network; the default networks of the library need some thousands."""

_COUNTS: Final = {re.compile(r"(layers?|depths?|blocks|experts)$"): 2048, re.compile(r"(labels|classes)$"): 100_000}
"""The largest number of what a network, or its configuration, has an object for each of, by the name of the field."""


def names() -> list[str]:
    """Lists the model types of the installed Transformers, in alphabetical order.

    Raises:
        ImportError: If Transformers is not installed.
    """
    return sorted(_transformers().CONFIG_MAPPING.keys())


def build(name: str, class_name: str = "", num_classes: int | None = None, image_size: int | None = None) -> nn.Module:
    """Builds an untrained network in evaluation mode. No remote code is run, and the hub is not asked.

    Args:
        name: One of :func:`names`, for its default configuration, or the path of a configuration: a JSON file, or a
            folder with ``config.json``.
        class_name: The class to build, such as ``"BertForSequenceClassification"`` or ``"AutoModelForCausalLM"``. By
            default the first known one that the configuration names, or else the class that ``AutoModel`` chooses, or
            ``AutoModelForImageClassification`` if ``num_classes`` is given.
        num_classes: Number of classes of a classifier, if not that of the configuration.
        image_size: Height and width of the images in pixels, if not that of the configuration.

    Raises:
        ValueError: If there is no such model type, configuration or class, or they do not give a network.
        ImportError: If Transformers, or a package that the network needs, is not installed.
    """
    with _offline():
        return _build(name, class_name, num_classes, image_size)


def _build(name: str, class_name: str, num_classes: int | None, image_size: int | None) -> nn.Module:
    transformers = _transformers()
    config = _load_config(transformers, name)
    _disable_pretrained_backbones(config)
    if num_classes is not None:
        config.num_labels = num_classes
        class_name = class_name or "AutoModelForImageClassification"
    if image_size is not None and hasattr(config, "image_size"):
        config.image_size = image_size
    cls = _network_class(transformers, config, class_name)
    try:
        is_auto_class = hasattr(cls, "from_config")
        with _Limits():
            network: nn.Module = cls.from_config(config, trust_remote_code=False) if is_auto_class else cls(config)
    except ImportError:
        raise
    except Exception as error:  # fields of a configuration may have any values
        reason = printable(str(error).partition("\n")[0])  # some messages continue with hundreds of names
        raise ValueError(
            f"{cls.__name__} cannot be built from this {type(config).__name__}: {type(error).__name__}: {reason}; name "
            "another class as in hf/NAME:CLASS, or give the path of a published model's config.json"
        ) from error
    return network.eval()


def _load_config(transformers: Any, name: str) -> Any:
    path = Path(name).expanduser()
    file = path / "config.json" if path.is_dir() else path
    known = names()
    if file.is_file():
        try:
            fields = _plain_fields(json.loads(file.read_text(encoding="utf-8")))
            if (model_type := fields.get("model_type")) not in known:
                raise ValueError(f"expected a known model_type, got {model_type!r:.80}")
            return transformers.CONFIG_MAPPING[model_type].from_dict(fields)
        except ImportError:
            raise
        except Exception as error:  # its fields may have any types
            reason = printable(" ".join(str(error).split()), 500)
            raise ValueError(
                f"{file} is not a configuration of Transformers, whose integers are at most {_MAX_SIZE:,}: {reason}"
            ) from error
    if name in known:
        return transformers.AutoConfig.for_model(name)
    if path.is_dir():
        raise ValueError(f"the folder {path} has no config.json")
    hint = suggestion(name, known, "hf/") or (
        "; `ghn-pyg models --networks` lists all names. The path of a config.json works too; nothing is downloaded"
    )
    raise ValueError(f"Transformers has no model type {name!r}{hint}")


def _plain_fields(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        # Private fields are the library's own; one of them makes it load code for attention from the hub.
        allowed = [name for name in value if not name.startswith("_") and name not in _REQUESTS]
        return {name: _plain_fields(value[name], name) for name in allowed}
    for pattern, limit in _COUNTS.items():
        if isinstance(value, int) and value > limit and pattern.search(name):
            raise ValueError(f"{name} expected at most {limit:,}, got {value:,}")
    if isinstance(value, int) and abs(value) > _MAX_SIZE:
        return float(value)  # no size, but maybe the base of a frequency
    return [_plain_fields(item, name) for item in value] if isinstance(value, list) else value


class _Limits(CheckedLayers):
    """Within this context a network is built whose number of layers and sizes make sense."""

    _calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        self._calls += 1
        if self._calls > _MAX_CALLS:
            raise ValueError("it has more layers than any network")
        if func is torch.empty and result.numel() > _MAX_ELEMENTS:
            raise ValueError(f"a tensor of shape {tuple(result.shape)} has more than {_MAX_ELEMENTS:,} elements")
        return result


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Within this context no configuration makes a library ask the hub, as for its backbone."""
    with _OFFLINE:
        before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


def _disable_pretrained_backbones(config: Any) -> None:
    if getattr(config, "use_pretrained_backbone", False):
        config.use_pretrained_backbone = False
    for name in getattr(config, "sub_configs", {}):
        if (sub_config := getattr(config, name, None)) is not None:
            _disable_pretrained_backbones(sub_config)


def _network_class(transformers: Any, config: Any, class_name: str) -> Any:
    if not class_name:
        architectures = config.architectures if isinstance(config.architectures, list) else ()
        classes = (getattr(transformers, str(name), None) for name in architectures)
        return next((cls for cls in classes if _is_network_of(cls, config)), transformers.AutoModel)
    cls = getattr(transformers, class_name, None)
    if hasattr(cls, "from_config") or _is_network_of(cls, config):
        return cls
    stem = type(config).__name__.removesuffix("Config")
    related = [name for name in dir(transformers) if name.startswith(stem) and not name.endswith(_NOT_NETWORKS)]
    hint = suggestion(class_name, related) or f"; expected for example {', '.join(related[:3]) or 'AutoModel'}"
    raise ValueError(f"Transformers has no network {class_name} for a {type(config).__name__}{hint}")


def _is_network_of(cls: Any, config: Any) -> bool:
    is_network = isinstance(cls, type) and issubclass(cls, nn.Module)
    return is_network and isinstance(config, getattr(cls, "config_class", None) or ())


def _transformers() -> Any:
    return require("transformers", extra="transformers", purpose="networks of Transformers")
