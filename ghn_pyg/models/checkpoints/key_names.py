"""Names of a GHN's tensors in published checkpoints and in ours, as a table, with the functions that apply it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from ...utils.suggest import some
from ..config import GHNConfig

__all__ = ["CheckpointError", "from_published", "is_ours", "strip_wrappers", "to_published"]


class CheckpointError(ValueError):
    """A checkpoint cannot be found, read or written, or does not hold what it should."""


# Published module, our module; ``*`` is a layer's number. A row covers the weights and biases of the module.
MODULES: Final = (
    ("embed", "node_embedding"),
    ("shape_enc.embed_spatial", "shape_encoding.spatial"),
    ("shape_enc.embed_channel", "shape_encoding.channel"),
    ("gnn.0.centrality_embed_in", "encoder.centrality.in_degree"),
    ("gnn.0.centrality_embed_out", "encoder.centrality.out_degree"),
    ("gnn.0.input_dist_embed", "encoder.depth"),
    ("gnn.0.attn.edge_embed.embed", "encoder.spatial.distance"),
    ("gnn.0.attn.proj_e.0", "encoder.spatial.mlp.0"),
    ("gnn.0.attn.proj_e.2", "encoder.spatial.mlp.2"),
    ("gnn.*.ln1", "encoder.layers.*.norm1"),
    ("gnn.*.attn.to_qkv", "encoder.layers.*.qkv"),
    ("gnn.*.attn.to_out.0", "encoder.layers.*.out"),
    ("gnn.*.ln2", "encoder.layers.*.norm2"),
    ("gnn.*.ff.net.0", "encoder.layers.*.ff.0"),
    ("gnn.*.ff.net.3", "encoder.layers.*.ff.2"),
    ("gnn.gru", "encoder.gru"),
    ("gnn.mlp.fc.0", "encoder.mlp.0"),
    ("gnn.mlp.fc.2", "encoder.mlp.2"),
    ("gnn.mlp_ve.fc.0", "encoder.virtual_mlp.0"),
    ("gnn.mlp_ve.fc.2", "encoder.virtual_mlp.2"),
    ("ln", "norm"),
    ("decoder.fc.0", "decoder.weight.fc"),
    ("decoder.conv.0", "decoder.weight.conv.0"),
    ("decoder.conv.2", "decoder.weight.conv.2"),
    ("decoder.class_layer_predictor.1", "decoder.weight.classifier"),
    ("decoder_1d.fc.0", "decoder.vector.fc.0"),
    ("decoder_1d.fc.2", "decoder.vector.fc.2"),
    ("bias_class.1", "decoder.vector.classifier"),
)

# The hub's files keep these outside of the first layer; we read that form but do not write it.
HUB_MODULES: Final = (
    ("centrality_embed_in", "encoder.centrality.in_degree"),
    ("centrality_embed_out", "encoder.centrality.out_degree"),
    ("input_dist_embed", "encoder.depth"),
)

# Linear layers of ours that GHN-2 and its baselines publish as 1x1 convolutions.
CONVOLUTIONS: Final = tuple(f"decoder.weight.{module}.weight" for module in ("conv.0", "conv.2", "classifier"))

# What torch.compile and DistributedDataParallel put in front of every name.
WRAPPERS: Final = ("_orig_mod.", "module.")

_PARAMETER = r"(?:weight|bias)(?:_ih|_hh)?"


def _compile(rows: Sequence[tuple[str, str]]) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Regular expressions of whole names, each with the template of the name to put in its place."""
    patterns = (re.escape(old).replace(r"\*", r"(?P<layer>0|[1-9][0-9]{0,3})") for old, _ in rows)
    templates = (new.replace("*", r"\g<layer>") for _, new in rows)
    return tuple(
        (re.compile(rf"{pattern}\.(?P<parameter>{_PARAMETER})"), rf"{template}.\g<parameter>")
        for pattern, template in zip(patterns, templates, strict=True)
    )


_FROM_PUBLISHED = _compile(MODULES + HUB_MODULES)
_TO_PUBLISHED = _compile([(ours, published) for published, ours in MODULES])


def strip_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes the prefixes of compiled and of data-parallel models from a state dict's names.

    Args:
        state: Tensors by name.

    Raises:
        CheckpointError: If two names become one.

    Example:
        >>> import torch
        >>> list(strip_wrappers({"_orig_mod.ln.weight": torch.ones(3)}))
        ['ln.weight']
    """
    return _rename(state, {name: _unwrapped(name) for name in state})


def is_ours(state: Mapping[str, Tensor]) -> bool:
    """Whether the tensors have our names rather than published ones; strip wrappers first."""
    return "node_embedding.weight" in state


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the tensors of a published checkpoint our names, and 1x1 convolutions the shape of linear layers.

    Both published forms are understood (the hub's, and that of locally trained models), and prefixes that
    ``torch.compile`` and data-parallel training leave are dropped. No tensor is copied.

    Args:
        state: Tensors by published name.

    Raises:
        CheckpointError: If a name is not in the table, or two names become one.

    Example:
        >>> import torch
        >>> list(from_published({"gnn.1.attn.to_qkv.weight": torch.ones(6, 2)}))
        ['encoder.layers.1.qkv.weight']
    """
    names = {name: _translate(_unwrapped(name), _FROM_PUBLISHED) for name in state}
    known = {name: new for name, new in names.items() if new is not None}
    if unknown := [name for name in names if name not in known]:
        raise CheckpointError(
            f"{len(unknown)} of {len(state)} tensors belong to no published GHN: {some(_quoted(unknown), 5)}. "
            f"Expected names such as 'embed.weight', 'gnn.0.ln1.weight' or 'decoder.fc.0.weight'; "
            f"this looks like the state dict of another family of models"
        )
    ours = _rename(state, known)
    for name in CONVOLUTIONS:
        if name in ours and ours[name].dim() == 4 and ours[name].shape[2:] == (1, 1):
            ours[name] = ours[name].flatten(1)
    return ours


def to_published(state: Mapping[str, Tensor], config: GHNConfig) -> dict[str, Tensor]:
    """The inverse of :func:`from_published`, in the form of locally trained models, so that published code reads it.

    Args:
        state: Tensors by our name.
        config: Configuration of the model; all but GHN-3 get 1x1 convolutions in the decoder.

    Raises:
        CheckpointError: If a tensor has no published counterpart, as in the MLP decoder.

    Example:
        >>> import torch
        >>> list(to_published({"norm.weight": torch.ones(3)}, GHNConfig()))
        ['ln.weight']
    """
    names = {name: _translate(name, _TO_PUBLISHED) for name in state}
    known = {name: new for name, new in names.items() if new is not None}
    if unknown := [name for name in names if name not in known]:
        raise CheckpointError(
            f"{len(unknown)} of {len(state)} tensors have no published name: {some(_quoted(unknown), 5)}. "
            f"Expected the state dict of a GHN with the convolutional decoder; keep others in this library's own format"
        )
    return {
        known[name]: tensor[:, :, None, None] if config.encoder != "ghn3" and name in CONVOLUTIONS else tensor
        for name, tensor in state.items()
    }


def _unwrapped(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _translate(name: str, table: Iterable[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in table:
        if match := pattern.fullmatch(name):
            return match.expand(template)
    return None


def _rename(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    sources: dict[str, str] = {}
    for old, new in names.items():
        if new in sources:
            raise CheckpointError(f"the tensors {sources[new]!r} and {old!r} both stand for {new!r}, expected only one")
        sources[new] = old
    return {new: state[old] for new, old in sources.items()}


def _quoted(names: Iterable[str]) -> list[str]:
    return [repr(name[:80]) for name in names]


def our_weights(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Checks that all values are weights, and gives them our names.

    Raises:
        CheckpointError: If something is no weight, or the names are those of another family of models.
    """
    for name, value in content.items():
        if not isinstance(name, str):
            raise CheckpointError(f"expected tensors by name, got a name of type {type(name).__name__}")
        if not isinstance(value, Tensor):
            raise CheckpointError(f"expected tensors by name, got {type(value).__name__} at {name!r}")
    state = strip_wrappers({name: value.detach() for name, value in content.items()})
    ours = state if is_ours(state) else from_published(state)  # names first: those of another family say the most
    for name, value in content.items():
        if value.layout != torch.strided or not value.is_floating_point() or value.device.type == "meta":
            raise CheckpointError(
                f"expected weights, got a tensor of {value.dtype}, {value.layout} on {value.device} at {name!r}"
            )
    return ours
