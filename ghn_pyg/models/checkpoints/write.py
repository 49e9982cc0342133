"""Writes a checkpoint in our own format: a folder with ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...utils.atomic_files import replacing_together
from ..config import GHNConfig
from .errors import CheckpointError

CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"


def write_folder(
    folder: str | os.PathLike[str], config: GHNConfig, state: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Writes ``config.json`` and ``model.safetensors``. A killed writer leaves the old or the new checkpoint.

    Args:
        folder: Folder to write into, created if missing. A checkpoint in it is replaced.
        config: Configuration of the model.
        state: The model's tensors by name.
        metadata: Entries for the header of the safetensors file, such as ``{"epoch": "75"}``.

    Raises:
        CheckpointError: If it cannot be written, as on a full disk; the folder then has the old checkpoint, or
            the new one, whole.

    Example:
        >>> write_folder("my-ghn", model.config, model.state_dict())  # doctest: +SKIP
    """
    folder = Path(folder)
    values = config.to_dict()
    header = {**(metadata or {}), "format": "pt", "config": json.dumps(values)}
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing_together(folder / WEIGHTS_FILE, folder / CONFIG_FILE) as (weights_file, config_file):
            config_file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8", newline="")
            save_file(tensors, weights_file, header)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"cannot write a checkpoint into {folder}: {error}") from error
