"""Tensors in several safetensors files with an index, as Hugging Face's libraries keep large networks.

A folder holds ``model-00001-of-00003.safetensors`` and so on, and ``model.safetensors.index.json``, which names the
file of each tensor. Neither writing nor reading holds more than one file's tensors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...utils.atomic_files import replacing
from ...version import __version__

INDEX_FILE: Final = "model.safetensors.index.json"
_SHARDS: Final = "model-*-of-*.safetensors"
_ONE_FILE: Final = "model.safetensors"
_MARK: Final = "ghn_pyg"
"""Metadata of what this module wrote: the version of the package."""


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """What ``model.safetensors.index.json`` says.

    Args:
        weight_map: The file of each tensor.
        metadata: ``total_size`` in bytes, and other facts.
    """

    weight_map: dict[str, str]
    metadata: dict[str, Any]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> ShardIndex:
        """Reads the index of a folder.

        Raises:
            FileNotFoundError: If the folder has none.
            ValueError: If it is damaged, or names files outside of the folder.
        """
        path = Path(folder, INDEX_FILE)
        if not path.is_file():
            raise FileNotFoundError(
                errno.ENOENT, f"expected a .safetensors file, or a folder with {INDEX_FILE}, got", str(folder)
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            index = cls(dict(content["weight_map"]), dict(content.get("metadata", {})))
            wrong = [file for file in index.weight_map.values() if Path(file).name != file]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); write it again") from error
        if wrong:
            raise ValueError(f"{path} names {wrong[0]!r}, expected files of its own folder alone")
        return index


class SavedTensors:
    """The tensors of a safetensors file, or of a folder with an index: those of one file after another.

    They are mapped into memory, so that a tensor takes some only while it is used.

    Args:
        path: The file or the folder.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If the index is damaged; a damaged file is found when it is opened.

    Example:
        >>> for tensors in SavedTensors("prediction"):  # doctest: +SKIP
        ...     print({name: tensor.shape for name, tensor in tensors.items()})
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        self.files: dict[Path, list[str] | None] = {}
        if path.is_file():
            self.files[path] = None
            return
        for name, file in sorted(ShardIndex.read(path).weight_map.items(), key=lambda item: item[1]):
            names = self.files.setdefault(path / file, [])
            assert names is not None
            names.append(name)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for path, names in self.files.items():
            try:
                with safe_open(path, framework="pt", device="cpu") as file:
                    wanted = file.keys() if names is None else names
                    tensors = {name: file.get_tensor(name) for name in wanted}
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged, or not of this index ({error}); write it again") from error
            yield tensors


class ShardWriter:
    """Gives out tensors to be filled, and writes those of one shard whenever the next would not fit into it.

    Args:
        folder: Folder for the files.
        shard_size: Largest size of a shard in bytes; a larger tensor has a shard of its own.
    """

    def __init__(self, folder: Path, shard_size: int) -> None:
        self.folder = folder
        self.shard_size = shard_size
        self.total_size = 0
        self.shards: list[list[str]] = []
        self._tensors: dict[str, Tensor] = {}
        self._bytes = 0

    def empty(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        """A new tensor of the shard, to be filled before the next one is asked for."""
        size = math.prod(shape) * dtype.itemsize
        if self._tensors and self._bytes + size > self.shard_size:
            self.flush()
        self._bytes += size
        self.total_size += size
        return self._tensors.setdefault(name, torch.empty(tuple(shape), dtype=dtype, device=device))

    def flush(self) -> None:
        """Writes the shard, and forgets its tensors."""
        with replacing(self.file(len(self.shards))) as unfinished:
            try:
                save_file(self._tensors, unfinished, {"format": "pt", _MARK: __version__})
            except SafetensorError as error:
                raise OSError(str(error)) from error
        self.shards.append(list(self._tensors))
        self._tensors = {}
        self._bytes = 0

    def file(self, position: int) -> Path:
        """Where a shard lies until all are complete."""
        return self.folder / f"{position}.safetensors"

    def finish(self, metadata: Mapping[str, Any]) -> tuple[ShardIndex, dict[str, Path]]:
        """Writes what is left and the index; gives it, and for each final name the file, the index last."""
        if self._tensors or not self.shards:
            self.flush()
        count = len(self.shards)
        names = [f"model-{position + 1:05}-of-{count:05}.safetensors" for position in range(count)]
        weight_map = {tensor: name for name, tensors in zip(names, self.shards, strict=True) for tensor in tensors}
        index = ShardIndex(weight_map, {**metadata, "total_size": self.total_size, _MARK: __version__})
        with replacing(self.folder / INDEX_FILE) as unfinished:
            unfinished.write_text(json.dumps(dataclasses.asdict(index), indent=2) + "\n", encoding="utf-8")
        files = {name: self.file(position) for position, name in enumerate(names)}
        return index, {**files, INDEX_FILE: self.folder / INDEX_FILE}


@contextlib.contextmanager
def shard_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary folder inside ``folder``, which is made if missing; after an error nothing is left of either.

    Raises:
        OSError: If the folder cannot be made.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
            yield Path(unfinished)
    except BaseException:
        with contextlib.suppress(OSError):  # somebody else put something there
            for path in made:
                path.rmdir()
        raise


def check_disk(folder: Path, needed: int) -> None:
    """Finds before the work that a disk has no room.

    Raises:
        OSError: If it has not; the message has the numbers.
    """
    if needed > (free := shutil.disk_usage(folder).free):
        raise OSError(
            errno.ENOSPC, f"the shards take {needed / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free on the disk of",
            str(folder),
        )  # fmt: skip


def earlier_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The index and the shards that this module wrote into a folder before, the index first.

    Raises:
        FileExistsError: If the folder holds weights of another origin, which are not to be replaced.
    """
    folder = Path(folder)
    found = [path for path in (folder / INDEX_FILE, *sorted(folder.glob(_SHARDS))) if path.exists()]
    foreign = [path for path in found if not _is_ours(path)]
    foreign += [path for path in (folder / _ONE_FILE,) if path.exists()]  # libraries would read it, not the shards
    if foreign:
        raise FileExistsError(
            errno.EEXIST,
            f"there are weights of another origin ({foreign[0].name}), which are not replaced; choose another folder",
            str(folder),
        )
    return found


def _is_ours(path: Path) -> bool:
    try:
        if path.name == INDEX_FILE:
            return _MARK in ShardIndex.read(path.parent).metadata
        with safe_open(path, framework="pt") as file:
            return _MARK in (file.metadata() or {})
    except (ValueError, SafetensorError):
        return False


def exchange(old: Sequence[Path], new: Mapping[str, Path], folder: str | os.PathLike[str]) -> None:
    """Moves complete files to their names in ``folder``, in their order, once the old ones are out of the way.

    If a move fails, all are undone.

    Args:
        old: Files of the folder, which are moved to where the new ones are.
        new: For each name the file.
        folder: The folder, on the same disk.
    """
    with contextlib.ExitStack() as undo:
        for path in old:
            aside = next(iter(new.values())).with_name(f"old-{path.name}")
            os.replace(path, aside)
            undo.callback(os.replace, aside, path)
        for name, path in new.items():
            os.replace(path, place := Path(folder, name))
            undo.callback(place.unlink, missing_ok=True)
        undo.pop_all()
