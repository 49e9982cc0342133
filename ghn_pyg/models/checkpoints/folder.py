"""Checkpoints on disk: reads published files and our own without running what they contain, and writes our own.

Ours is a folder with ``config.json`` and ``model.safetensors``; published ones are joblib dumps and ``torch.save``
files, whose tensors :mod:`ghn_pyg.models.checkpoints.key_names` renames.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...utils.atomic_files import replacing
from ...utils.suggest import some
from ..config import GHNConfig
from .infer_config import checked_config, infer_config
from .key_names import CheckpointError, our_weights
from .unpickler import LEGACY_PICKLES, LEGACY_START, check_nesting, load_joblib, load_weights

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "CheckpointError", "check_state", "read_checkpoint", "write_folder"]

CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"

# A checkpoint's tensors, and its configuration where it has one.
_Content = tuple[Mapping[Any, Any], Mapping[str, Any] | None]

_EXPECTED: Final = (
    f"a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, a .safetensors file, or a published .pt file "
    f"(a joblib dump or a torch.save file with the state dict of a GHN)"
)

# What torch.load may build besides tensors: the command line that published training code saves.
_ALLOWED: Final = (argparse.Namespace,)
_allowing = threading.Lock()  # torch keeps its list of allowed globals for the whole process

_MAX_CONFIG_BYTES: Final = 1 << 20

_FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[GHNConfig, dict[str, Tensor]]:
    """Reads a GHN's configuration and tensors from any of the known formats, running nothing that a file contains.

    Args:
        path: A folder that :func:`write_folder` made, its ``.safetensors`` file alone, a joblib dump (the hub's
            ``.pt`` files), or a ``torch.save`` file with a state dict, alone or as the ``"state_dict"`` of a
            training checkpoint, or one that meta-training here wrote, of which the average of the weights is taken
            where there is one. Tensors of recent ``torch.save`` and of safetensors files are mapped into memory.

    Returns:
        The configuration (from the file, else inferred from the tensors) and the tensors by our name, on the CPU.

    Raises:
        CheckpointError: If there is no such file, it is damaged, it asks for anything that a checkpoint does not
            need, or it holds another family of models.

    Example:
        >>> config, state = read_checkpoint("ghn3tm8.pt")  # doctest: +SKIP
        >>> config.layers  # doctest: +SKIP
        3
    """
    path = Path(path)
    try:
        content, config = _reader(path)(path)
        state = our_weights(content)
        return infer_config(state) if config is None else checked_config(config, state), state
    except CheckpointError as error:
        raise CheckpointError(f"cannot load {path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}. Expected {_EXPECTED}") from error
    except Exception as error:  # a damaged or hostile file can make its parser raise anything
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"cannot load {path}: it is damaged, or holds more than tensors and plain values "
            f"({type(error).__name__}: {reason}). Expected {_EXPECTED}; download it again, or save the state dict"
        ) from error


def check_state(expected: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> None:
    """Compares a checkpoint's names, shapes and types with a model's, before anything is changed.

    Args:
        expected: Shape of each of the model's tensors by name.
        state: The checkpoint's tensors by name.

    Raises:
        CheckpointError: If tensors are missing, unexpected, of another shape, or of a type that no parameter has
            (integers, say); the message lists them.

    Example:
        >>> import torch
        >>> check_state({"norm.weight": torch.Size([3])}, {"norm.weight": torch.ones(3)})
    """
    faults = {
        "missing": [f"{name} {tuple(shape)}" for name, shape in expected.items() if name not in state],
        "unexpected": [f"{name} {tuple(tensor.shape)}" for name, tensor in state.items() if name not in expected],
        "of another shape": [
            f"{name}: expected {tuple(expected[name])}, got {tuple(tensor.shape)}"
            for name, tensor in state.items()
            if name in expected and tensor.shape != expected[name]
        ],
        "of another type": [
            f"{name}: expected torch.float32 or such, got {tensor.dtype}"
            for name, tensor in state.items()
            if name in expected and tensor.dtype not in _FLOATS
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(names)} {kind} ({some(names, 10)})" for kind, names in faults.items() if names)
        raise CheckpointError(
            f"the checkpoint does not fit the model: {listed}. "
            f"Expected the {len(expected)} tensors of its configuration; build the model with the checkpoint's own"
        )


def write_folder(
    folder: str | os.PathLike[str],
    config: GHNConfig,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a checkpoint as ``config.json`` and ``model.safetensors``; both are complete before either appears.

    Args:
        folder: Folder to write into; made if missing. A checkpoint that it holds is replaced.
        config: Configuration of the model.
        state: The model's tensors by name.
        metadata: Further facts for the header of the safetensors file, such as ``{"epoch": "75"}``.

    Raises:
        CheckpointError: If it cannot be written, as on a full disk; an older checkpoint is left as it was.

    Example:
        >>> write_folder("my-ghn", model.config, model.state_dict())  # doctest: +SKIP
    """
    folder = Path(folder)
    if folder.is_file():
        raise CheckpointError(f"cannot write a checkpoint into {folder}: it is a file, expected a folder")
    values = config.to_dict()
    header = {**(metadata or {}), "format": "pt", "config": json.dumps(values)}
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / CONFIG_FILE) as config_file:
            config_file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            with replacing(folder / WEIGHTS_FILE) as weights_file:
                save_file(tensors, weights_file, header)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"cannot write a checkpoint into {folder}: {error}") from error


def _reader(path: Path) -> Callable[[Path], _Content]:
    if path.is_dir():
        return _read_folder
    with open(path, "rb") as file:
        head = file.read(32)
    # Eight bytes with the length of a JSON header, and the header.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _read_safetensors
    for start, reader in _READERS:
        if head.startswith(start):
            return reader
    got = f"a file that starts with {head[:16]!r}" if head else "an empty file"
    raise CheckpointError(f"expected {_EXPECTED}, got {got}")


def _read_folder(folder: Path) -> _Content:
    if missing := [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]:
        raise CheckpointError(f"the folder has no {' and no '.join(missing)}. Expected {_EXPECTED}")
    if (folder / CONFIG_FILE).stat().st_size > _MAX_CONFIG_BYTES:
        raise CheckpointError(f"{CONFIG_FILE} is too large for a configuration; save the checkpoint again")
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    state, written = _read_safetensors(folder / WEIGHTS_FILE)
    if not isinstance(config, dict) or (written is not None and written != config):
        raise CheckpointError(
            f"{CONFIG_FILE} is not the configuration that {WEIGHTS_FILE} was saved with; "
            f"expected {written}, got {config}; save the checkpoint again"
        )
    return state, config


def _read_safetensors(path: Path) -> _Content:
    with safe_open(path, framework="pt", device="cpu") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        metadata = file.metadata() or {}
    config = json.loads(metadata["config"]) if "config" in metadata else None
    if not isinstance(config, dict | None):
        raise CheckpointError(f"expected a dictionary as the configuration in its header, got {config!r}")
    return state, config


def _read_torch(path: Path) -> _Content:
    with zipfile.ZipFile(path) as archive:
        # torch.save never compresses, and compressed tensors could not be mapped into memory.
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise CheckpointError("its records are compressed, expected them as torch.save stores them")
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                with archive.open(name) as file:
                    check_nesting(file, pickles=1)
    return _state_dict(_torch_load(path, mmap=True))


def _read_legacy_torch(path: Path) -> _Content:
    with open(path, "rb") as file:
        check_nesting(file, LEGACY_PICKLES)
    return _state_dict(_torch_load(path, mmap=False))


def _torch_load(path: Path, *, mmap: bool) -> Any:
    with _allowing:
        # On leaving, torch would also forget what the user had allowed before.
        added: list[Any] = [known for known in _ALLOWED if known not in torch.serialization.get_safe_globals()]
        with torch.serialization.safe_globals(added):
            return load_weights(path, mmap=mmap)


def _read_joblib(path: Path) -> _Content:
    return _state_dict(load_joblib(path))


# By a file's first bytes.
_READERS: Final = (
    (b"PK", _read_torch),
    (LEGACY_START, _read_legacy_torch),
    (b"\x80", _read_joblib),
    (b"\x78", _read_joblib),
    (b"\x1f\x8b", _read_joblib),
)


def _state_dict(content: Any) -> _Content:
    """Splits a training checkpoint into its tensors and its configuration."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"expected a dictionary of tensors, got {type(content).__name__}")
    if "ghn" in content and "progress" in content:
        return _trained(content)
    if "state_dict" not in content:
        return content, None
    state, config = content["state_dict"], content.get("config")
    if not isinstance(state, Mapping):
        raise CheckpointError(f"expected a dictionary of tensors as its 'state_dict', got {type(state).__name__}")
    return state, config if isinstance(config, Mapping) else None


def _trained(content: Mapping[Any, Any]) -> _Content:
    """The GHN, or its average over the steps, of a run's own checkpoint."""
    config = content.get("config")
    ghn = config.get("ghn") if isinstance(config, Mapping) else None
    state = content.get("average") or content["ghn"]
    if not isinstance(state, Mapping) or not isinstance(ghn, Mapping):
        raise CheckpointError("expected the checkpoint of a run, with tensors and the configuration of its GHN")
    return {name: value for name, value in state.items() if name != "n_averaged"}, ghn
