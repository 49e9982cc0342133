"""Networks of Transformers by model type or by a configuration on disk: without downloads, without remote code."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

from torch import nn

from ..utils.suggest import suggestion

_CONFIG_FILE: Final = "config.json"
_NO_NETWORKS: Final = ("Config", "Tokenizer", "TokenizerFast", "Processor", "ProcessorFast", "Extractor")


def names() -> list[str]:
    """Model types that the installed Transformers know, in alphabetical order.

    Raises:
        ImportError: If Transformers are missing.
    """
    return sorted(_transformers().CONFIG_MAPPING.keys())


def make(name: str, head: str = "") -> nn.Module:
    """Builds an untrained network, in evaluation mode as Transformers load them.

    Args:
        name: One of :func:`names`, for its default configuration, or the path of a configuration: a JSON file, or a
            folder with ``config.json``.
        head: The class to build, such as ``"BertForSequenceClassification"`` or ``"AutoModelForCausalLM"``. By
            default the first that the configuration names, else the one that ``AutoModel`` takes.

    Raises:
        ValueError: If there is no such model type, configuration or class, or no network can be built from them.
        ImportError: If Transformers, or what they need for this network, are missing.
    """
    transformers = _transformers()
    path = Path(name).expanduser()
    config = _read(transformers, path) if _is_configuration(path) else _default(transformers, name, path)
    _forget_pretrained(config)
    cls = _class(transformers, config, head)
    try:
        auto = hasattr(cls, "from_config")
        network: nn.Module = cls.from_config(config, trust_remote_code=False) if auto else cls(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(_failure(transformers, cls, config, error)) from error
    return network.eval()


def _is_configuration(path: Path) -> bool:
    return path.is_file() or (path / _CONFIG_FILE).is_file()


def _read(transformers: Any, path: Path) -> Any:
    file = path / _CONFIG_FILE if path.is_dir() else path
    try:
        return transformers.AutoConfig.from_pretrained(str(file), local_files_only=True, trust_remote_code=False)
    except (OSError, KeyError) as error:
        raise ValueError(f"{file} is no configuration of Transformers: {error}") from error


def _default(transformers: Any, name: str, path: Path) -> Any:
    known = names()
    if name not in known:
        if path.exists():
            raise ValueError(f"the folder {path} has no {_CONFIG_FILE}")
        hint = suggestion(name, known, "hf/") or (
            f"; expected one of its {len(known)}, which `ghn-pyg models --networks` lists, or the path of a "
            "config.json; configurations are read from disk and nothing is downloaded"
        )
        raise ValueError(f"Transformers have no model type {name!r}{hint}")
    return transformers.AutoConfig.for_model(name)


def _forget_pretrained(config: Any) -> None:
    """Backbones that would come with downloaded weights come without."""
    if getattr(config, "use_pretrained_backbone", False):
        config.use_pretrained_backbone = False
    for name in getattr(config, "sub_configs", {}):
        if (part := getattr(config, name, None)) is not None:
            _forget_pretrained(part)


def _class(transformers: Any, config: Any, head: str) -> Any:
    if not head:
        named = (getattr(transformers, name, None) for name in config.architectures or ())
        return next((cls for cls in named if cls is not None), transformers.AutoModel)
    cls = getattr(transformers, head, None)
    if hasattr(cls, "from_config") or _takes(cls, config):
        return cls
    known = _family(transformers, config)
    hint = suggestion(head, known) or f"; expected one such as {', '.join(known[:3]) or 'AutoModel'}"
    raise ValueError(f"{head} is no network of Transformers for a {type(config).__name__}{hint}")


def _failure(transformers: Any, cls: Any, config: Any, error: Exception) -> str:
    kind = type(config).__name__
    if "Unrecognized configuration class" in str(error):  # the message goes on with hundreds of names
        known = " or ".join(_family(transformers, config)[:3])
        hint = f", such as {known}," if known else ""
        return f"{cls.__name__} knows no network for a {kind}; name a class{hint} behind a colon, as in hf/NAME:CLASS"
    return (
        f"{cls.__name__} builds no network from this {kind}: {type(error).__name__}: {error}; a default configuration "
        "may lack what it needs, so take that of a model"
    )


def _family(transformers: Any, config: Any) -> list[str]:
    """What Transformers have under the name of a configuration, but for what is no network."""
    start = type(config).__name__.removesuffix("Config")
    return [name for name in dir(transformers) if name.startswith(start) and not name.endswith(_NO_NETWORKS)]


def _takes(cls: Any, config: Any) -> bool:
    """Whether a class is a network that is built from such a configuration."""
    wanted = getattr(cls, "config_class", None)
    return isinstance(cls, type) and issubclass(cls, nn.Module) and wanted is not None and isinstance(config, wanted)


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError(
            'networks of Transformers need transformers; install it with: pip install "ghn_pyg[transformers]"'
        ) from error
