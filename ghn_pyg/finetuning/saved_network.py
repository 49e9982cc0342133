"""Files of trained networks, which know their classes, image size and normalisation."""

from __future__ import annotations

import json
import os
from typing import Annotated, Final

from pydantic import Field, PositiveInt
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model
from torch import nn

from ..data import Images
from ..models.trained_for import Colours
from ..utils.config import Config

_KEY: Final = "network"


class NetworkInfo(Config):
    """What the file of a trained network says about it, in one entry of its metadata.

    It is one entry because safetensors writes several in a random order, and equal networks should give equal files.

    Args:
        architecture: Name of the network, as for :func:`~ghn_pyg.evaluation.subjects.named_subject`.
        ghn: The GHN that it started from.
        data: Name or folder of the image data, as for :func:`~ghn_pyg.data.load_images`.
        image_size: Height and width of the images in pixels.
        mean: Mean of each colour, subtracted from pixels from 0 to 1.
        std: Standard deviation of each colour, by which they are then divided.
        num_classes: Number of classes.
        classes: Names of the classes in the order of their labels; empty if they have none.
        auxiliary: Whether a network of DeepNets-1M has an auxiliary classifier.
    """

    architecture: str
    ghn: str
    data: str
    image_size: PositiveInt
    mean: Colours
    std: Colours
    num_classes: PositiveInt
    classes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    auxiliary: bool = False

    @classmethod
    def of_images(cls, architecture: str, ghn: str, images: Images, auxiliary: bool = False) -> NetworkInfo:
        """What is known about a network that was trained on image data."""
        return cls(
            architecture=architecture, ghn=ghn, data=images.source or images.name, image_size=images.image_size,
            mean=images.mean, std=images.std, num_classes=images.num_classes, classes=images.classes,
            auxiliary=auxiliary,
        )  # fmt: skip


def save_network(network: nn.Module, path: str | os.PathLike[str], info: NetworkInfo) -> None:
    """Writes a network's state into a safetensors file.

    Example:
        >>> import tempfile
        >>> from ghn_pyg.data import load_images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     info = NetworkInfo.of_images("resnet18", "digits", load_images("digits"))
        ...     save_network(nn.Linear(2, 10), f"{folder}/network.safetensors", info)
        ...     read_info(f"{folder}/network.safetensors").image_size
        16
    """
    save_model(network, os.fspath(path), {_KEY: json.dumps(info.to_dict())})


def read_info(path: str | os.PathLike[str]) -> NetworkInfo | None:
    """What a file says about its network; None for files that were not written by :func:`save_network`."""
    try:
        with safe_open(path, "pt") as stream:
            return NetworkInfo.from_dict(json.loads((stream.metadata() or {})[_KEY]))
    except (OSError, SafetensorError, KeyError, ValueError, AttributeError):  # the weights give the error of the file
        return None
