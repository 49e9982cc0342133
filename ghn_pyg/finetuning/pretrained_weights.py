"""Weights of torchvision and timm, or of a file, as the initial values of a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from ..utils.pickle_reader import read_pickle
from ..utils.suggest import some
from ..zoo import timm_models
from ..zoo.parse_name import parse_name

DEFAULT: Final = "default"


def load_pretrained(
    network: nn.Module, source: str, weights: str | os.PathLike[str] = DEFAULT, image_size: int | None = None
) -> list[str]:
    """Takes over pretrained weights of the same name and shape, in place.

    Larger filters are cropped to their centre, as torchvision's networks are adapted to small images. Others, such as
    those of a classifier for other classes, keep their values.

    Args:
        network: The network.
        source: Its name, as for :func:`~ghn_pyg.zoo.build_network`.
        weights: A safetensors file or one of ``torch.save``; by default the library's weights, which are downloaded.
        image_size: Height and width of the images, for networks of timm that are built for one size.

    Returns:
        Names of parameters that keep their values.

    Raises:
        ValueError: If there are no such weights, or most of them do not fit. The network is unchanged then.
        OSError: If they cannot be downloaded or read.
        ImportError: If timm is not installed.
    """
    state = _library_weights(source, image_size) if weights == DEFAULT else _read(weights)
    own = network.state_dict()
    taken = {
        name: fitting for name, tensor in own.items() if (fitting := _fit(state.get(name), tensor.shape)) is not None
    }
    parameters = dict(network.named_parameters())
    kept = [name for name in parameters if name not in taken]
    if 2 * len(kept) > len(parameters):
        raise ValueError(
            f"the pretrained weights are not of {source}: {len(kept)} of {len(parameters)} parameters have others or "
            f"none, such as {some(kept, limit=1)}"
        )
    network.load_state_dict(taken, strict=False)
    return kept


def _fit(tensor: Tensor | None, shape: torch.Size) -> Tensor | None:
    """The tensor in this shape, cropped to its centre if it is a larger filter; None if it does not fit."""
    if tensor is None or tensor.dim() != len(shape) or tensor.shape[:2] != shape[:2]:
        return None
    for dim in range(2, tensor.dim()):
        if tensor.size(dim) < shape[dim]:
            return None
        tensor = tensor.narrow(dim, (tensor.size(dim) - shape[dim]) // 2, shape[dim])
    return tensor


def _library_weights(source: str, image_size: int | None) -> Mapping[str, Tensor]:
    library, name, _ = parse_name(source)
    try:
        if library == "timm":
            return timm_models.build(name, image_size, pretrained=True).state_dict()
        if library == "torchvision":
            weights: Any = torchvision.models.get_model_weights(name)
            state: Mapping[str, Tensor] = weights.DEFAULT.get_state_dict(progress=True, check_hash=True)
            return state
    except (RuntimeError, AttributeError) as error:  # there are none, or the file is damaged
        raise ValueError(f"cannot load pretrained weights for {source}: {error}") from error
    raise ValueError(f"{library} has no pretrained weights for {source} that can be found by name; give a file")


def _read(path: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    try:
        state: Any = load_file(path) if os.fspath(path).endswith(".safetensors") else read_pickle(path)
    except OSError:
        raise
    except Exception as error:  # the errors of a damaged file are not documented
        raise ValueError(f"cannot read {os.fspath(path)}: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{os.fspath(path)} expected a state dict with tensors by name")
    return state
