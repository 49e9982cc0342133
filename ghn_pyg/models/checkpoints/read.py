"""Reads a checkpoint of any known format without running what it contains.

Our own format is a folder with ``config.json`` and ``model.safetensors``. Published files are joblib dumps and
``torch.save`` files (:mod:`ghn_pyg.utils.pickle_reader`), whose keys :mod:`.published_keys` translates.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from torch import Tensor

from ...utils.atomic_files import finish_replacing
from ...utils.pickle_reader import read_pickle
from ...utils.strict_json import parse_json
from ..config import GHNConfig
from .errors import CheckpointError
from .infer_config import checked_config, infer_config
from .published_keys import our_weights
from .write import CONFIG_FILE, WEIGHTS_FILE

# The tensors of a checkpoint, and its configuration if it has one.
_Content = tuple[Mapping[Any, Any], Mapping[str, Any] | None]

_EXPECTED: Final = (
    f"a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, a .safetensors file, or a published .pt file "
    f"(a joblib dump or a torch.save file with the state dict of a GHN)"
)

_MAX_CONFIG_BYTES: Final = 1 << 20


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[GHNConfig, dict[str, Tensor]]:
    """Reads a GHN's configuration and tensors.

    Args:
        path: A folder of :func:`~ghn_pyg.models.checkpoints.write_folder`, its ``.safetensors`` file alone, a joblib
            dump (the hub's ``.pt`` files), or a ``torch.save`` file: a state dict, a training checkpoint of the
            published code (``"state_dict"``), or one of meta-training here, whose averaged weights are preferred.
            Tensors of safetensors and of recent ``torch.save`` files are mapped into memory.

    Returns:
        The configuration (of the file, else inferred from the tensors) and the tensors by our name, on the CPU.

    Raises:
        CheckpointError: If the file is missing or damaged, asks for anything that a checkpoint does not need, or
            belongs to another family of models.

    Example:
        >>> config, state = read_checkpoint("ghn3tm8.pt")  # doctest: +SKIP
        >>> config.layers  # doctest: +SKIP
        3
    """
    path = Path(path)
    try:
        content, config = _read_folder(path) if path.is_dir() else _read_file(path)
        state = our_weights(content)
        return infer_config(state) if config is None else checked_config(config, state), state
    except CheckpointError as error:
        raise CheckpointError(f"cannot load {path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"cannot load {path}: expected {_EXPECTED}; {error}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}. Expected {_EXPECTED}") from error
    except Exception as error:  # a damaged or hostile file can make its parser raise anything
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"cannot load {path}: it is damaged, or holds more than tensors and plain values "
            f"({type(error).__name__}: {reason}). Expected {_EXPECTED}; download it again, or save the state dict"
        ) from error


def _read_folder(folder: Path) -> _Content:
    finish_replacing(folder)
    if missing := [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]:
        raise CheckpointError(f"the folder has no {' and no '.join(missing)}. Expected {_EXPECTED}")
    if (folder / CONFIG_FILE).stat().st_size > _MAX_CONFIG_BYTES:
        raise CheckpointError(f"{CONFIG_FILE} is too large for a configuration; save the checkpoint again")
    config = parse_json((folder / CONFIG_FILE).read_bytes())
    state, written = _read_safetensors(folder / WEIGHTS_FILE)
    if not isinstance(config, dict) or (written is not None and written != config):
        raise CheckpointError(
            f"{CONFIG_FILE} is not the configuration that {WEIGHTS_FILE} was saved with; "
            f"expected {written}, got {config}; save the checkpoint again"
        )
    return state, config


def _read_file(path: Path) -> _Content:
    if not path.stat().st_size:  # opening a pipe or a device could block for ever
        raise pickle.UnpicklingError("got an empty file, a pipe or a device")
    with open(path, "rb") as file:
        head = file.read(9)
    # Safetensors: eight bytes with the length of a JSON header, and the header.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _read_safetensors(path)
    return _split_training_checkpoint(read_pickle(path))


def _read_safetensors(path: Path) -> _Content:
    with open(path, "rb") as file:
        if (size := int.from_bytes(file.read(8), "little")) > _MAX_CONFIG_BYTES:
            raise CheckpointError(f"its header has {size:,} bytes, which no checkpoint needs")
    with safe_open(path, framework="pt", device="cpu") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        metadata = file.metadata() or {}
    config = parse_json(metadata["config"]) if "config" in metadata else None
    if not isinstance(config, dict | None):
        raise CheckpointError(f"expected a dictionary as the configuration in its header, got {config!r}")
    return state, config


def _split_training_checkpoint(content: Any) -> _Content:
    """The state dict and the configuration of a training checkpoint; a state dict alone has no configuration."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"expected a dictionary of tensors, got {type(content).__name__}")
    config = content.get("config")
    if "ghn" in content and "progress" in content:  # meta-training here
        config = config.get("ghn") if isinstance(config, Mapping) else None
        state = content.get("average") or content["ghn"]
        if not isinstance(state, Mapping) or not isinstance(config, Mapping):
            raise CheckpointError("expected the checkpoint of a run, with tensors and the configuration of its GHN")
        return {name: value for name, value in state.items() if name != "n_averaged"}, config
    if "state_dict" not in content:
        return content, None
    state = content["state_dict"]
    if not isinstance(state, Mapping):
        raise CheckpointError(f"expected a dictionary of tensors as its 'state_dict', got {type(state).__name__}")
    return state, config if isinstance(config, Mapping) else None
