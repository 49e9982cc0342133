"""The inputs that a network is traced with by default: an image, or what a model of Transformers asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from .shallow_copy import wrapped

_IMAGE_SIZE: Final = 224
_INCEPTION_SIZE: Final = 299  # needed by torchvision's Inception, which does not declare it
_TOKENS: Final = 16
_VIDEO_FRAMES: Final = 16
_SAMPLES: Final = 16_000
_SPECTROGRAM_FRAMES: Final = 128


def default_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the forward pass.

    Models of Transformers get what their configuration asks for, others an image of the size that they declare.
    """
    while (inner := wrapped(model)) is not None:
        model = model.get_submodule(inner)
    main = getattr(model, "main_input_name", None)
    if isinstance(main, str) and hasattr(model, "config"):
        return (), _transformers_inputs(model, main)
    return (torch.empty(1, *_image_shape(model), device="meta"),), {}


def _image_shape(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width: timm's ``default_cfg["input_size"]``, ``image_size`` of vision transformers, 224."""
    config: Any = getattr(model, "default_cfg", None)
    if isinstance(config, dict) and len(size := tuple(config.get("input_size", ()))) == 3:
        return size
    side = getattr(model, "image_size", None)
    if not isinstance(side, int):
        side = _INCEPTION_SIZE if type(model).__module__ == "torchvision.models.inception" else _IMAGE_SIZE
    return 3, side, side


def _transformers_inputs(model: Any, main: str) -> dict[str, Any]:
    """Inputs of a model of Transformers by name: the main one, a decoder's, a second modality's, and required ones."""
    config, taken = model.config, inspect.signature(model.forward).parameters
    # A main input that stands for several is taken by other names.
    names = [main if main in taken and main in _CREATORS else next((name for name in _CREATORS if name in taken), main)]
    names += [name for name, parameter in taken.items() if parameter.default is parameter.empty] + ["decoder_input_ids"]
    if _part(config, "vision_config") is not None and _part(config, "text_config") is not None:
        names += ["input_ids", "pixel_values"]
    if "bbox" in taken and not hasattr(config, "vision_config"):
        names.append("bbox")
    inputs = {name: _CREATORS[name](config) for name in names if name in taken and name in _CREATORS}
    # A cache of keys and values serves the next token, which a trace does not compute.
    return inputs | ({"use_cache": False} if "use_cache" in taken and inputs else {})


def _part(config: Any, name: str) -> Any:
    """The configuration of a part of a model, as an object."""
    part = getattr(config, name, None)
    return None if part is None or isinstance(part, Mapping) else part


def _setting(config: Any, parts: tuple[str, ...], names: tuple[str, ...], default: Any) -> Any:
    """The first setting with one of these names, of the configuration itself or of one of its parts."""
    owners = (config, *(_part(config, part) for part in parts))
    values = (getattr(owner, name, None) for owner in owners for name in names)
    return next((value for value in values if value is not None), default)


def _ids(config: Any) -> Tensor:
    """Token ids, which end with the end-of-sequence token where there is one."""
    ids = torch.ones(1, _TOKENS, dtype=torch.long)
    end = _setting(config, ("text_config",), ("eos_token_id",), None)
    size = _setting(config, ("text_config",), ("vocab_size",), 0)
    if isinstance(end, int) and 0 <= end < size:
        ids[0, -1] = end
    return ids


def _image(config: Any) -> Tensor:
    sizes = _setting(config, _VISION, ("image_size", "img_size", "input_size"), _IMAGE_SIZE)
    channels = _setting(config, _VISION, ("num_channels", "in_chans", "in_channels"), 3)
    if isinstance(sizes, Mapping):
        sizes = (sizes["height"], sizes["width"])
    height, width = (sizes, sizes) if isinstance(sizes, int) else tuple(sizes)[-2:]
    frames = getattr(config, "num_frames", None)
    shape = (channels, height, width) if frames is None else (frames, channels, height, width)
    return torch.empty(1, *shape, device="meta")


def _video(config: Any) -> Tensor:
    image = _image(config)
    frames = getattr(config, "frames_per_clip", _VIDEO_FRAMES)
    return image if image.dim() > 4 else image.unsqueeze(1).expand(1, frames, *image.shape[1:])


def _spectrogram(config: Any) -> Tensor:
    mel_bins = _setting(config, _AUDIO, ("num_mel_bins", "input_feat_per_channel", "feature_size"), 80)
    longest = _setting(config, _AUDIO, ("max_source_positions",), None)
    if getattr(config, "max_source_positions", None) and hasattr(config, "num_mel_bins"):
        return torch.empty(1, mel_bins, 2 * longest, device="meta")
    return torch.empty(1, _SPECTROGRAM_FRAMES, mel_bins, device="meta")


def _waveform(config: Any) -> Tensor:
    mel_bins = getattr(config, "num_mel_bins", None)
    if mel_bins is not None and (longest := getattr(config, "max_length", None)):
        return torch.empty(1, longest, mel_bins, device="meta")
    channels = getattr(config, "audio_channels", None)
    return torch.empty(*((1,) if channels is None else (1, channels)), _SAMPLES, device="meta")


def _boxes(config: Any) -> Tensor:
    numbers = getattr(config, "dim_bbox", None)
    return torch.zeros(1, _TOKENS, 4, dtype=torch.long) if numbers is None else torch.empty(1, _TOKENS, numbers)


_VISION: Final = ("vision_config", "backbone_config", "image_encoder_config")
_AUDIO: Final = ("audio_config", "encoder_config", "audio_encoder")
_CREATORS: Final[dict[str, Callable[[Any], Tensor]]] = {
    "input_ids": _ids,
    "pixel_values": _image,
    "pixel_values_videos": _video,
    "input_features": _spectrogram,
    "input_values": _waveform,
    "bbox": _boxes,
    "decoder_input_ids": _ids,
}
