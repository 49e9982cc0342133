"""Reads ``torch.save`` files, by ``torch.load(weights_only=True)`` and with checks of what that leaves open."""

from __future__ import annotations

import argparse
import os
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, Any, Final

import torch

LEGACY_START: Final = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""The pickled magic number of torch.save files before torch 1.6, and of storages within a joblib dump."""

LEGACY_PICKLES: Final = 5
"""Pickles in such a file: magic number, protocol version, system information, content, keys of the storages."""

# GHN-3-XL's training checkpoint has some six thousand.
_MAX_TUPLES: Final = 20_000

# What published training code saves besides tensors.
_ARGUMENTS: Final = (argparse.Namespace,)

# How PyTorch names what it refuses to load.
_GLOBAL: Final = re.compile(r"GLOBAL ([\w.]+) (?:was not an allowed global|whose module)", re.ASCII)


def read_torch_file(path: Path) -> Any:
    """Reads a file of ``torch.save``, a zip archive, mapping its tensors into memory."""
    with zipfile.ZipFile(path) as archive:
        # torch.save never compresses, and compressed tensors cannot be mapped into memory.
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise pickle.UnpicklingError("its records are compressed, expected them as torch.save stores them")
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                with archive.open(name) as file:
                    check_nesting(file, pickles=1)
    return _load_with_arguments(path, mmap=True)


def read_legacy_torch_file(path: Path) -> Any:
    """Reads a file of ``torch.save`` before torch 1.6, which is a sequence of pickles."""
    with open(path, "rb") as file:
        check_nesting(file, LEGACY_PICKLES)
    return _load_with_arguments(path, mmap=False)


def _load_with_arguments(path: Path, *, mmap: bool) -> Any:
    """Loads weights, and the command line that published training code saves with them."""
    # Only what is new: on leaving, the context removes its globals even if the user had allowed them before.
    added: list[Any] = [kind for kind in _ARGUMENTS if kind not in torch.serialization.get_safe_globals()]
    with torch.serialization.safe_globals(added):
        return load_weights(path, mmap=mmap)


def load_weights(file: str | os.PathLike[str] | IO[bytes], *, mmap: bool | None = None) -> Any:
    """``torch.load`` of tensors and plain values, on the CPU.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> torch.save({"weight": torch.ones(3)}, file)
        >>> load_weights(io.BytesIO(file.getvalue()))["weight"].shape
        torch.Size([3])
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        asked = _GLOBAL.search(str(error))
        holds = (
            f"asks for {asked[1]}, which no checkpoint needs" if asked else "holds more than tensors and plain values"
        )
        raise pickle.UnpicklingError(f"the file {holds}") from None


def check_nesting(file: IO[bytes], pickles: int) -> None:
    """Refuses consecutive pickles with tuples that may nest so deeply that hashing one overflows the stack."""
    tuples = 0
    for _ in range(pickles):
        for opcode, _, _ in pickletools.genops(file):
            tuples += opcode.name.startswith("TUPLE")
            if tuples > _MAX_TUPLES:
                raise pickle.UnpicklingError(f"the file has more than {_MAX_TUPLES} tuples, which no checkpoint needs")
