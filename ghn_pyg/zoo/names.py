"""What names a network, and what goes into it, as text. Nothing here imports torch, so that slips show at once."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from ..utils.suggest import similar

if TYPE_CHECKING:
    from torch import Tensor

FORMS: Final = "a torchvision name, timm/NAME, hf/MODEL_TYPE, hf/CONFIG[:CLASS] or module:PACKAGE.MODULE:FACTORY"
"""How a network can be named."""

_DTYPES: Final = {"float": "float32", "half": "float16", "double": "float64", "int": "int32", "long": "int64"} | {
    name: name for name in ("float32", "float16", "float64", "bfloat16", "int32", "int64", "uint8", "bool")
}
_INPUT: Final = re.compile(r"(?:(?P<name>[^=:]+)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?")
_DOTTED: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_PATTERN: Final = re.compile(r"[*?\[]")


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a network comes from.

    Args:
        library: ``"torchvision"``, ``"timm"``, ``"hf"`` (Transformers) or ``"module"`` (a function of one's own).
        name: Its name there; of Transformers a model type, or the path of a configuration; of a function its module.
        part: Of Transformers the class to build, if not the configuration's own; of a module its function.
    """

    library: Literal["torchvision", "timm", "hf", "module"]
    name: str
    part: str = ""


def parse_source(text: str) -> Source:
    """Reads what names a network, without looking whether there is one.

    Args:
        text: Such as ``"resnet18"``, ``"timm/resnet18"``, ``"hf/bert"``, ``"hf/folder/config.json"``,
            ``"hf/bert:BertForSequenceClassification"`` or ``"module:package.module:make"``.

    Raises:
        ValueError: If it names none; the message says why and what was expected.

    Example:
        >>> parse_source("hf/bert:BertForSequenceClassification")
        Source(library='hf', name='bert', part='BertForSequenceClassification')
    """
    if text.startswith("module:"):
        module, _, factory = text.removeprefix("module:").partition(":")
        if not _DOTTED.fullmatch(module) or not _DOTTED.fullmatch(factory):
            raise ValueError(f"expected module:PACKAGE.MODULE:FACTORY, such as module:models.small:make, got {text!r}")
        return Source("module", module, factory)
    library, slash, name = text.partition("/")
    if slash and library == "timm" and name:
        return Source("timm", name)
    if slash and library == "hf" and name:
        return _transformers(name)
    if slash or not text or ":" in text:
        raise ValueError(f"expected {FORMS} for a network, got {text!r}{_hint(text, library)}")
    return Source("torchvision", text)


def is_pattern(text: str) -> bool:
    """Whether a name stands for all that match it, such as ``"timm/vit_*"``."""
    return bool(_PATTERN.search(text)) and not text.startswith("module:")


@dataclasses.dataclass(frozen=True, slots=True)
class InputSpec:
    """One tensor that goes into a network.

    Args:
        shape: Its shape.
        dtype: Its type, by its name in PyTorch.
        name: The keyword that it is passed by; empty for the next argument.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str = ""

    def tensor(self) -> Tensor:
        """The tensor: without data if it is a floating-point one, else of zeros, or ones for a mask."""
        import torch

        dtype = getattr(torch, self.dtype)
        if dtype.is_floating_point:
            return torch.empty(self.shape, dtype=dtype, device="meta")
        return torch.full(self.shape, dtype is torch.bool, dtype=dtype)


def parse_input(text: str) -> InputSpec:
    """Reads the shape, type and keyword of a tensor.

    Args:
        text: Such as ``"1x3x32x32"``, ``"1x16:long"`` or ``"input_ids=1x16:long"``.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> parse_input("input_ids=1x16:long")
        InputSpec(shape=(1, 16), dtype='int64', name='input_ids')
    """
    found = _INPUT.fullmatch(text)
    if found is None:
        raise ValueError(f"expected the shape of an input, such as 1x3x32x32, 1x16:long or ids=1x16:long, got {text!r}")
    dtype = found["dtype"] or "float32"
    if dtype not in _DTYPES:
        raise ValueError(f"unknown type {dtype!r} of the input {text!r}, expected one of {', '.join(_DTYPES)}")
    return InputSpec(tuple(map(int, found["shape"].split("x"))), _DTYPES[dtype], found["name"] or "")


def check_inputs(specs: Sequence[InputSpec]) -> None:
    """Finds inputs that do not go together.

    Raises:
        ValueError: If some have a keyword and others none, or two the same.
    """
    names = [spec.name for spec in specs if spec.name]
    if names and len(set(names)) < len(specs):
        raise ValueError("expected a different keyword for each input, or none for all of them")


def make_inputs(specs: Sequence[InputSpec]) -> Any:
    """Example inputs for :func:`~ghn_pyg.from_module`: arguments in a tuple, or a dictionary of keyword arguments.

    Example:
        >>> make_inputs([parse_input("1x5"), parse_input("1x7:long")])[1].dtype
        torch.int64
    """
    if any(spec.name for spec in specs):
        return {spec.name: spec.tensor() for spec in specs}
    return tuple(spec.tensor() for spec in specs)


def _transformers(name: str) -> Source:
    """A model type, or the path of a configuration; nothing is ever downloaded."""
    part = ""
    if ":" in name and not _exists(name):
        name, _, part = name.rpartition(":")
        if not name or not part.isidentifier():
            raise ValueError(f"expected hf/CONFIG:CLASS with a class of Transformers, got {f'hf/{name}:{part}'!r}")
    if not _exists(name) and ("/" in name or name.endswith(".json") or name.startswith((".", "~"))):
        raise ValueError(
            f"hf/{name}: there is no file or folder {name} here; configurations are read from disk and nothing is "
            "downloaded, so save the model's config.json first and name it, or take a model type such as hf/bert"
        )
    return Source("hf", name, part)


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _hint(text: str, library: str) -> str:
    """What may have been meant."""
    if _exists(text):
        return f"; did you mean hf/{text}?"
    if re.fullmatch(rf"{_DOTTED.pattern}:{_DOTTED.pattern}", text):
        return f"; did you mean module:{text}?"
    if near := similar(library, ("timm", "hf", "torchvision", "huggingface", "transformers")):
        meant = {"huggingface": "hf/", "transformers": "hf/", "torchvision": ""}.get(near[0], f"{near[0]}/")
        return f"; did you mean {meant}{text.partition('/')[2]}?"
    return ""
