"""Translates the keys of published state dicts to our names and back.

``published_keys.json`` has the table: module by module, with ``*`` for the number of a layer. The hub's files keep
three embeddings of the first layer at the top level (``hub_modules``); we read that form but do not write it. The
linear layers under ``convolutions`` are 1×1 convolutions in published checkpoints of GHN-2 and its baselines.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import torch
from torch import Tensor

from ...utils.suggest import some
from ..config import GHNConfig
from .errors import CheckpointError

_TABLE: Final = json.loads(resources.files(__package__).joinpath("published_keys.json").read_text(encoding="utf-8"))
_CONVOLUTIONS: Final[list[str]] = _TABLE["convolutions"]
_FROM_PUBLISHED: Final[dict[str, str]] = _TABLE["modules"] | _TABLE["hub_modules"]
_TO_PUBLISHED: Final = {ours: published for published, ours in _TABLE["modules"].items()}

_PARAMETERS: Final = ("weight", "bias", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
_LAYER: Final = re.compile(r"(gnn|encoder\.layers)\.(0|[1-9][0-9]{0,3})\.(.+)")

_FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# torch.compile and DistributedDataParallel put these in front of every name.
_WRAPPERS: Final = re.compile(r"^(_orig_mod\.|module\.)+")


def strip_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes the prefixes of compiled and of data-parallel models from the names of a state dict.

    Example:
        >>> import torch
        >>> list(strip_wrappers({"_orig_mod.ln.weight": torch.ones(3)}))
        ['ln.weight']
    """
    return _renamed(state, [_WRAPPERS.sub("", name) for name in state])


def _renamed(state: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """The tensors under new names, which must differ: one of two tensors would be lost otherwise."""
    if len(set(names)) < len(names):
        twice = min(name for name, count in Counter(names).items() if count > 1)
        raise CheckpointError(f"expected each tensor once, got several for {twice}; keep one of them")
    return dict(zip(names, state.values(), strict=True))


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the tensors of a published checkpoint our names, and 1×1 convolutions the shape of linear layers.

    Both published forms are read: that of the hub and that of locally trained models. No tensor is copied.

    Args:
        state: Tensors by published name.

    Example:
        >>> import torch
        >>> list(from_published({"gnn.1.attn.to_qkv.weight": torch.ones(6, 2)}))
        ['encoder.layers.1.qkv.weight']
    """
    if unknown := [name for name in state if not _translate(name, _FROM_PUBLISHED)]:
        raise CheckpointError(
            f"{len(unknown)} of {len(state)} tensors belong to no published GHN: {_quote(unknown)}. "
            f"Expected names such as 'embed.weight', 'gnn.0.ln1.weight' or 'decoder.fc.0.weight'; "
            f"this looks like the state dict of another family of models"
        )
    ours = _renamed(state, [_translate(name, _FROM_PUBLISHED) for name in state])
    for name in _CONVOLUTIONS:
        if name in ours and ours[name].dim() == 4 and ours[name].shape[2:] == (1, 1):
            ours[name] = ours[name].flatten(1)
    return ours


def to_published(state: Mapping[str, Tensor], config: GHNConfig) -> dict[str, Tensor]:
    """The inverse of :func:`from_published`, in the form of locally trained models.

    Args:
        state: Tensors by our name.
        config: Configuration of the model; all but GHN-3 get 1×1 convolutions in the decoder.

    Example:
        >>> import torch
        >>> list(to_published({"norm.weight": torch.ones(3)}, GHNConfig()))
        ['ln.weight']
    """
    if unknown := [name for name in state if not _translate(name, _TO_PUBLISHED)]:
        raise CheckpointError(
            f"{len(unknown)} of {len(state)} tensors have no published name: {_quote(unknown)}. "
            f"Expected the state dict of a GHN with the convolutional decoder"
        )
    convolutions = _CONVOLUTIONS if config.encoder != "ghn3" else ()
    return {
        _translate(name, _TO_PUBLISHED): tensor[:, :, None, None] if name in convolutions else tensor
        for name, tensor in state.items()
    }


def our_weights(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Checks that a file's values are weights, strips wrappers, and translates published names."""
    for name, value in content.items():
        if not isinstance(name, str):
            raise CheckpointError(f"expected tensors by name, got a name of type {type(name).__name__}")
        if not isinstance(value, Tensor):
            raise CheckpointError(f"expected tensors by name, got {type(value).__name__} at {name!r}")
    state = strip_wrappers({name: value.detach() for name, value in content.items()})
    # Names before types: the error about another family of models is the most helpful one.
    state = state if "node_embedding.weight" in state else from_published(state)
    for name, value in content.items():
        if value.dtype not in _FLOATS or not value.numel():
            raise CheckpointError(
                f"expected weights, got a tensor of {value.dtype}, of shape {tuple(value.shape)}, at {name!r}"
            )
    return state


def _translate(name: str, table: Mapping[str, str]) -> str:
    """The other name of a parameter, or ``""`` if the table does not have its module."""
    module, _, parameter = name.rpartition(".")
    other = table.get(module, "")
    if not other and (layer := _LAYER.fullmatch(module)):
        other = table.get(f"{layer[1]}.*.{layer[3]}", "").replace("*", layer[2])
    return f"{other}.{parameter}" if other and parameter in _PARAMETERS else ""


def _quote(names: list[str]) -> str:
    return some([repr(name[:80]) for name in names], 5)
