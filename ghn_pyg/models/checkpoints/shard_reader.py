"""Reads tensors of several safetensors files with an index, the format of Hugging Face's libraries.

A folder holds ``model-00001-of-00003.safetensors`` and so on, and ``model.safetensors.index.json``, which names the
file of each tensor. :mod:`.shard_writer` writes it.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...utils.strict_json import parse_json
from ...utils.suggest import printable

INDEX_FILE: Final = "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """The content of ``model.safetensors.index.json``.

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
            content = parse_json(path.read_bytes())
            index = cls(dict(content["weight_map"]), dict(content.get("metadata", {})))
            outside = [file for file in index.weight_map.values() if Path(file).name != file]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}: {printable(str(error), 300)}); write it again"
            ) from error
        if outside:
            raise ValueError(f"{path} names {printable(outside[0], 300)!r}, expected files of its own folder only")
        return index


class SavedTensors:
    """Iterates over the files of a folder with an index, or over a single safetensors file.

    Each iteration gives the tensors of one file by name. They are mapped into memory, so only tensors in use take
    memory.

    Args:
        path: The file or the folder.

    Raises:
        FileNotFoundError: If neither exists.
        ValueError: If the index is damaged; a damaged file raises when it is reached.

    Example:
        >>> for tensors in SavedTensors("prediction"):  # doctest: +SKIP
        ...     print({name: tensor.shape for name, tensor in tensors.items()})
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        self.names_by_file: dict[Path, list[str]] = {}
        if path.is_file():
            self.names_by_file[path] = []  # all
            return
        for name, file in sorted(ShardIndex.read(path).weight_map.items(), key=lambda item: item[1]):
            self.names_by_file.setdefault(path / file, []).append(name)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for path, names in self.names_by_file.items():
            if not path.stat().st_size:  # opening a pipe or a device could block for ever
                raise ValueError(f"{path} is empty, or a pipe or device; write it again")
            try:
                with safe_open(path, framework="pt", device="cpu") as file:
                    tensors = {name: file.get_tensor(name) for name in (names or file.keys())}
            except SafetensorError as error:
                raise ValueError(
                    f"{path} is damaged, or does not belong to its index ({printable(str(error))}); write it again"
                ) from error
            yield tensors
