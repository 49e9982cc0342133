"""Writes tensors as safetensors shards with an index, holding one shard at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...utils.atomic_files import replacing
from ...version import __version__
from .shard_reader import INDEX_FILE, ShardIndex
from .write import WEIGHTS_FILE

_VERSION_KEY: Final = "ghn_pyg"
"""Metadata of an index that this module wrote: the version of the package."""


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
            The index, and the temporary file of each final name, the index last.
        """
        if self._tensors or not self.written:
            self._flush()
        count = len(self.written)
        files = {f"model-{i + 1:05}-of-{count:05}.safetensors": self._file(i) for i in range(count)}
        weight_map = {name: file for file, names in zip(files, self.written, strict=True) for name in names}
        index = ShardIndex(weight_map, {**metadata, "total_size": self.total_size, _VERSION_KEY: __version__})
        files[INDEX_FILE] = self.folder / INDEX_FILE
        with replacing(files[INDEX_FILE]) as unfinished:
            unfinished.write_text(json.dumps(dataclasses.asdict(index), indent=2) + "\n", encoding="utf-8")
        return index, files

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
    """The index and the shards of an earlier prediction in a folder, the index first."""
    shards: list[Path] = []
    with contextlib.suppress(OSError, ValueError):
        index = ShardIndex.read(folder)
        if _VERSION_KEY in index.metadata:
            shards = [folder / INDEX_FILE, *(folder / file for file in set(index.weight_map.values()))]
    weights = [folder / INDEX_FILE, folder / WEIGHTS_FILE, *sorted(folder.glob("model-*-of-*.safetensors"))]
    if foreign := [path.name for path in weights if path.exists() and path not in shards]:
        raise FileExistsError(
            errno.EEXIST, f"{foreign[0]} is not of an earlier prediction; choose another folder than", str(folder)
        )
    return shards


def replace_shards(old: Sequence[Path], new: Mapping[str, Path], folder: Path) -> None:
    """Removes old files, the index first, and moves the new file of each name into the folder, the index last."""
    for path in old:
        path.unlink(missing_ok=True)
    for name, path in new.items():
        os.replace(path, folder / name)
