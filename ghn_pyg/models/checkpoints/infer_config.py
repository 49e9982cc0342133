"""The configuration of the GHN in a checkpoint: inferred from its tensors, or checked against them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from ...utils.config import ConfigError
from ...utils.suggest import some
from ..config import GHNConfig
from ..encoders import PUBLISHED_ENCODERS
from .errors import CheckpointError

# Fields that the tensors do not show, and fields that they show for GHN-3 only.
_NOT_INFERRED: Final = ("weight_norm", "kernel_crop")
_INFERRED_FOR_GHN3: Final = ("layers", "heads")


def infer_config(state: Mapping[str, Tensor]) -> GHNConfig:
    """Infers a GHN's configuration from its tensors.

    Args:
        state: Tensors by our name.

    Returns:
        The configuration. The tensors do not show ``weight_norm`` and ``kernel_crop``; these are as published.

    Example:
        >>> infer_config(from_published(published_state)).heads  # doctest: +SKIP
        8
    """
    channels = _size(state, "node_embedding.weight", 1)
    layers = sum(name.endswith(".norm1.weight") for name in state)
    encoder = "ghn3" if layers else "mlp"
    if any(name.startswith("encoder.gru.") for name in state):
        encoder = "ghn2" if any(name.startswith("encoder.virtual_mlp.") for name in state) else "ghn1"
    try:
        return GHNConfig(
            encoder=encoder,
            hidden_channels=channels,
            max_channels=_side(state, "decoder.weight.conv.2.weight", depth=1),
            max_kernel_size=_side(state, "decoder.weight.fc.weight", depth=4 * channels),
            num_classes=_size(state, "decoder.weight.classifier.weight", 0),
            layers=layers,
            heads=_size(state, "encoder.spatial.mlp.2.weight", 0) if layers else 0,
            final_norm="norm.weight" in state,
            kernel_crop="center" if encoder == "ghn3" else "corner",
        )
    except ConfigError as error:
        raise CheckpointError(f"its tensors make no configuration: {error}") from error


def checked_config(stated: Mapping[str, Any], state: Mapping[str, Tensor]) -> GHNConfig:
    """The configuration that a checkpoint states, if its tensors agree with it.

    Args:
        stated: The fields in the file, ours or published ones.
        state: Tensors by our name.
    """
    ours = "encoder" in stated
    # Before anything prints or hashes them: nested values of a hostile file can take for ever.
    if ours and (nested := [name for name, value in stated.items() if not _is_plain(name, value)]):
        raise CheckpointError(
            f"its configuration is not valid: expected text and numbers, got others as {some(nested, 5)}"
        )
    if ours and len(stated) > 2 * len(GHNConfig.model_fields):  # each unknown one would be compared with all others
        raise CheckpointError(f"its configuration is not valid: it has {len(stated):,} fields")
    try:
        if ours and (stated.get("decoder") == "mlp" or stated["encoder"] not in PUBLISHED_ENCODERS):
            # Nothing to infer from; the shapes are compared with the model's later.
            return _bounded(GHNConfig.from_dict(stated), state)
        inferred = infer_config(state)
        if not ours:  # a published configuration: only the scaling is not in the tensors
            return inferred.replace(weight_norm=stated.get("weight_norm", True) is not False)
        config = GHNConfig.from_dict(stated)
    except ConfigError as error:
        raise CheckpointError(f"its configuration is not valid: {error}") from error
    ignored = _NOT_INFERRED if inferred.encoder == "ghn3" else _NOT_INFERRED + _INFERRED_FOR_GHN3
    for field, value in config.shape.to_dict().items():
        if field not in ignored and value != getattr(inferred, field):
            raise CheckpointError(
                f"its configuration says {field} = {value!r}, but its tensors are those of "
                f"{getattr(inferred, field)!r}; save the checkpoint again, or correct or remove the configuration"
            )
    return config


def _is_plain(name: Any, value: Any) -> bool:
    """Whether a field is text or a number; ``trained_for`` has fields, which may be lists of these."""
    if name != "trained_for" or not isinstance(value, dict):
        return isinstance(value, (str, int))
    values = [each for field in value.values() for each in (field if isinstance(field, list) else [field])]
    return all(isinstance(each, (str, int, float)) for each in values)


def _bounded(config: GHNConfig, state: Mapping[str, Tensor]) -> GHNConfig:
    """The configuration, unless it asks for a model far larger than the file."""
    width = _size(state, "node_embedding.weight", 1)
    if config.layers > len(state) or config.hidden_channels != width:
        raise CheckpointError(
            f"its configuration says {config.layers} layers of width {config.hidden_channels}, but it has "
            f"{len(state)} tensors, and node embeddings of width {width}"
        )
    largest = max(size for tensor in state.values() for size in tensor.shape)
    for field in ("max_channels", "max_kernel_size", "num_classes"):
        if (value := getattr(config, field)) > largest:
            raise CheckpointError(
                f"its configuration says {field} = {value}, but no dimension of its tensors is larger than {largest}"
            )
    return config


def _size(state: Mapping[str, Tensor], name: str, dim: int) -> int:
    if name not in state:
        raise CheckpointError(f"it has no tensor {name!r}; expected those of a GHN with the convolutional decoder")
    if state[name].dim() != 2:
        raise CheckpointError(f"its tensor {name!r} has shape {tuple(state[name].shape)}, expected two dimensions")
    return state[name].shape[dim]


def _side(state: Mapping[str, Tensor], name: str, depth: int) -> int:
    """The side of the ``depth`` squares that a layer's rows form."""
    rows = _size(state, name, 0)
    side = math.isqrt(rows // depth)
    if depth * side**2 != rows:
        raise CheckpointError(f"its tensor {name!r} has {rows} rows, expected a square number times {depth}")
    return side
