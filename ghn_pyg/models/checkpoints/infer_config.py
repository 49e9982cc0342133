"""The configuration of a GHN in a checkpoint: read off its tensors, or checked against them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from ...utils.suggest import some
from ..config import GHNConfig
from ..encoders import PUBLISHED_ENCODERS
from .key_names import CheckpointError, our_weights

# Names in published configurations of what else is read off the tensors.
_PUBLISHED_FIELDS: Final = {
    "hid": "hidden_channels",
    "num_classes": "num_classes",
    "layers": "layers",
    "heads": "heads",
}

# What tensors tell of a GHN-3, and of the others.
_IN_TENSORS: Final = (
    "encoder",
    "decoder",
    "hidden_channels",
    "max_channels",
    "max_kernel_size",
    "num_classes",
    "final_norm",
)
_IN_GHN3_TENSORS: Final = (*_IN_TENSORS, "layers", "heads")


def infer_config(state: Mapping[str, Tensor]) -> GHNConfig:
    """Reads a GHN's configuration off its tensors.

    Args:
        state: Tensors by published name or by ours.

    Returns:
        The configuration. The tensors do not tell whether decoded tensors are scaled and which part of the kernel
        is used: as published, they are, and it is the corner for all but GHN-3.

    Raises:
        CheckpointError: If tensors are missing or contradict each other.

    Example:
        >>> infer_config(published_state).heads  # doctest: +SKIP
        8
    """
    state = our_weights(state)
    d = _size(state, "node_embedding.weight", 1)
    layers = sum(name.endswith(".norm1.weight") for name in state)
    encoder = "ghn3" if layers else "mlp"
    if any(name.startswith("encoder.gru.") for name in state):
        encoder = "ghn2" if any(name.startswith("encoder.virtual_mlp.") for name in state) else "ghn1"
    try:
        return GHNConfig(
            encoder=encoder,
            hidden_channels=d,
            max_channels=_side(state, "decoder.weight.conv.2.weight", depth=1),
            max_kernel_size=_side(state, "decoder.weight.fc.weight", depth=4 * d),
            num_classes=_size(state, "decoder.weight.classifier.weight", 0),
            layers=layers,
            heads=_size(state, "encoder.spatial.mlp.2.weight", 0) if layers else 0,
            final_norm="norm.weight" in state,
            kernel_crop="center" if encoder == "ghn3" else "corner",
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"its tensors make no configuration: {error}") from error


def checked_config(given: Mapping[str, Any], state: Mapping[str, Tensor]) -> GHNConfig:
    """The configuration that a checkpoint states, once its tensors agree with it.

    Args:
        given: The fields that the file holds, ours or published ones.
        state: Tensors by our name.

    Raises:
        CheckpointError: If the fields are not valid, or are not those of the tensors.
    """
    ours = "encoder" in given
    if ours and (wrong := [name for name, value in given.items() if not isinstance(value, (str, int))]):
        raise CheckpointError(
            f"its configuration is not valid: expected text and numbers, got others as {some(wrong, 5)}"
        )
    try:
        if ours and (given.get("decoder") == "mlp" or given["encoder"] not in PUBLISHED_ENCODERS):
            # Nothing to infer; the shapes are checked against the model's.
            return _bounded(GHNConfig.from_dict(dict(given)), state)
        inferred = infer_config(state)
        config = GHNConfig.from_dict(dict(given)) if ours else _from_published_config(given, inferred)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"its configuration is not valid: {error}") from error
    for field in _IN_GHN3_TENSORS if inferred.encoder == "ghn3" else _IN_TENSORS:
        stated, found = getattr(config, field), getattr(inferred, field)
        if stated != found:
            raise CheckpointError(
                f"its configuration says {field} = {stated!r}, but its tensors are those of {found!r}; "
                f"save the checkpoint again, or correct or remove the configuration"
            )
    return config


def _bounded(config: GHNConfig, state: Mapping[str, Tensor]) -> GHNConfig:
    """The configuration, unless it asks for a model far larger than the file."""
    width = _size(state, "node_embedding.weight", 1)
    if config.layers > len(state) or config.hidden_channels != width:
        raise CheckpointError(
            f"its configuration says {config.layers} layers of width {config.hidden_channels}, but it has "
            f"{len(state)} tensors, and node embeddings of width {width}"
        )
    return config


def _from_published_config(given: Mapping[str, Any], inferred: GHNConfig) -> GHNConfig:
    """Takes over the fields that we know; what else published code keeps there, the tensors tell."""
    changes = {field: given[name] for name, field in _PUBLISHED_FIELDS.items() if type(given.get(name)) is int}
    if inferred.encoder != "ghn3":
        changes.update(layers=0, heads=0)  # published configurations name a default that has no effect
    shape = given.get("max_shape")
    if isinstance(shape, (list, tuple)) and [type(size) for size in shape] == [int] * 4:
        changes.update(max_channels=shape[0], max_kernel_size=shape[3])
    if isinstance(given.get("weight_norm"), bool):
        changes["weight_norm"] = given["weight_norm"]
    return dataclasses.replace(inferred, **changes)


def _size(state: Mapping[str, Tensor], name: str, dim: int) -> int:
    if name not in state:
        raise CheckpointError(f"it has no tensor {name!r}; expected those of a GHN with the convolutional decoder")
    if state[name].dim() != 2:
        raise CheckpointError(f"its tensor {name!r} has shape {tuple(state[name].shape)}, expected two dimensions")
    return state[name].shape[dim]


def _side(state: Mapping[str, Tensor], name: str, depth: int) -> int:
    """The side of the squares, ``depth`` of them, that a layer's rows make."""
    rows = _size(state, name, 0)
    side = math.isqrt(rows // depth)
    if depth * side**2 != rows:
        raise CheckpointError(f"its tensor {name!r} has {rows} rows, expected a square number times {depth}")
    return side
