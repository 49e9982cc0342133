"""Writes tensors as safetensors shards with an index, holding one shard at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...utils.atomic_files import replacing, write_text
from ...version import __version__
from .shard_reader import INDEX_FILE, ShardIndex
from .write import WEIGHTS_FILE

_VERSION_KEY: Final = "ghn_pyg"
"""Metadata of an index that this module wrote: the version of the package."""

_REPLACED_KEY: Final = "replaced"
"""Metadata of an index of unfinished shards: names that earlier shards or unfinished ones may have."""

_UNFINISHED: Final = ".ghn-pyg-shard-"


class ShardWriter:
    """Allocates tensors for the caller to fill, and writes a shard when the next tensor does not fit into it.

    Args:
        folder: Folder for the files.
        shard_size: Largest size of a shard in bytes; a larger tensor gets its own shard.
    """

    def __init__(self, folder: Path, shard_size: int) -> None:
        self.folder = folder
        self.shard_size = shard_size
        self.total_size = 0
        self.written: list[list[str]] = []
        self._tensors: dict[str, Tensor] = {}
        self._bytes = 0

    def empty(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        """A new tensor of the shard, to be filled before the next call."""
        size = math.prod(shape) * dtype.itemsize
        if self._tensors and self._bytes + size > self.shard_size:
            self._flush()
        self._bytes += size
        self.total_size += size
        return self._tensors.setdefault(name, torch.empty(tuple(shape), dtype=dtype, device=device))

    def finish(self, metadata: Mapping[str, Any]) -> tuple[ShardIndex, dict[str, Path]]:
        """Writes the last shard and the index.

        Returns:
            The index, and the temporary file of each shard by its final name.
        """
        if self._tensors or not self.written:
            self._flush()
        count = len(self.written)
        files = {f"model-{i + 1:05}-of-{count:05}.safetensors": self._file(i) for i in range(count)}
        weight_map = {name: file for file, names in zip(files, self.written, strict=True) for name in names}
        return ShardIndex(weight_map, {**metadata, "total_size": self.total_size, _VERSION_KEY: __version__}), files

    def _flush(self) -> None:
        with replacing(self._file(len(self.written))) as unfinished:
            try:
                save_file(self._tensors, unfinished, {"format": "pt"})
            except SafetensorError as error:
                raise OSError(str(error)) from error
        self.written.append(list(self._tensors))
        self._tensors = {}
        self._bytes = 0

    def _file(self, shard: int) -> Path:
        return self.folder / f"{shard}.safetensors"


def check_disk(folder: Path, needed: int) -> None:
    """Raises an OSError with both numbers if the disk of a folder has less than ``needed`` bytes free."""
    if needed > (free := shutil.disk_usage(folder).free):
        message = f"the shards need {needed / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free on the disk of"
        raise OSError(errno.ENOSPC, message, str(folder))


def existing_shards(folder: Path) -> list[Path]:
    """The shards of earlier predictions in a folder, also of killed ones.

    Raises:
        FileExistsError: If it holds other weights.
    """
    known: set[str] = set()
    with contextlib.suppress(OSError, TypeError, ValueError):
        index = ShardIndex.read(folder)
        if _VERSION_KEY in index.metadata:
            known = {INDEX_FILE, *index.weight_map.values(), *map(str, index.metadata.get(_REPLACED_KEY, ()))}
    shards = sorted(folder.glob("model-*-of-*.safetensors"))
    weights = [folder / INDEX_FILE, folder / WEIGHTS_FILE, *shards]
    if foreign := [path.name for path in weights if path.exists() and path.name not in known]:
        raise FileExistsError(
            errno.EEXIST, f"{foreign[0]} is not of an earlier prediction; choose another folder than", str(folder)
        )
    return [*shards, *folder.glob(f"{_UNFINISHED}*")]


def replace_shards(index: ShardIndex, shards: Mapping[str, Path], folder: Path) -> ShardIndex:
    """Moves shards into a folder and removes earlier ones. A killed process leaves one prediction, whole.

    The new shards have other names until the earlier ones, whose names they may get, are gone.

    Args:
        index: The new index.
        shards: The file of each name, on the same disk.
        folder: The folder.

    Returns:
        The index of the folder. It has other names than ``index`` if the file system has no hard links.
    """
    old = existing_shards(folder)
    prefix = f"{_UNFINISHED}{secrets.token_hex(4)}-"
    for name, path in shards.items():
        os.replace(path, folder / (prefix + name))
    replaced = sorted({*shards, *(path.name for path in old)})
    weight_map = {name: prefix + file for name, file in index.weight_map.items()}
    unfinished = ShardIndex(weight_map, {**index.metadata, _REPLACED_KEY: replaced})
    _write_index(unfinished, folder)
    for path in old:
        path.unlink(missing_ok=True)
    try:
        for name in shards:
            os.link(folder / (prefix + name), folder / name)
    except OSError:
        return unfinished
    _write_index(index, folder)
    for name in shards:
        (folder / (prefix + name)).unlink()
    return index


def _write_index(index: ShardIndex, folder: Path) -> None:
    write_text(folder / INDEX_FILE, json.dumps(dataclasses.asdict(index), indent=2) + "\n")
