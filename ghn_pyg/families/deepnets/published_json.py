"""The JSON files of DeepNets-1M: arguments of each architecture, and the names that HDF5 files refer to by number."""

from __future__ import annotations

import json
import os
import re
from array import array
from pathlib import Path
from typing import Any, Final, NamedTuple

_SPLIT: Final = re.compile(r'\s*[{,]\s*"([^"]*)"\s*:\s*{\s*"nets"\s*:\s*\[\s*')
_COMMA: Final = re.compile(r"\s*,\s*")
_META: Final = re.compile(r'\s*\]\s*,\s*"meta"\s*:\s*')
_SPLIT_END: Final = re.compile(r"\s*}")
_END: Final = re.compile(r"\s*}\s*$")


class DatasetError(ValueError):
    """A DeepNets-1M file is missing, damaged or not what was expected."""


class SplitIndex(NamedTuple):
    """The offsets of a split's architectures, which take 16 MB for a million, and what the ids of HDF5 files mean."""

    starts: array[int]
    stops: array[int]
    meta: Any


def meta_path(path: str | os.PathLike[str]) -> Path:
    """The JSON file of an HDF5 file.

    Example:
        >>> meta_path("deepnets1m_train.hdf5").name
        'deepnets1m_train_meta.json'
    """
    path = Path(path)
    return path.with_name(f"{path.stem}_meta.json")


def index_splits(content: bytes) -> dict[str, SplitIndex]:
    """Locates the arguments of all architectures in ``{split: {"nets": [arguments, …], "meta": …}, …}``.

    Example:
        >>> content = b'{"val": {"nets": [{"ks": 3}, {"ks": 5}], "meta": {}}}'
        >>> val = index_splits(content)["val"]
        >>> content[val.starts[1] : val.stops[1]]
        b'{"ks": 5}'
    """
    text = str(content, "ascii")  # as json writes it, so that offsets in the text are those in the file
    decode = json.JSONDecoder().raw_decode
    splits, position = {}, 0
    while split := _SPLIT.match(text, position):
        starts, stops = array("q"), array("q")
        position = split.end()
        while text.startswith("{", position):
            starts.append(position)
            position = decode(text, position)[1]
            stops.append(position)
            if comma := _COMMA.match(text, position):
                position = comma.end()
        meta, position = decode(text, _skip(_META, text, position))
        position = _skip(_SPLIT_END, text, position)
        splits[split[1]] = SplitIndex(starts, stops, meta)
    _skip(_END, text, position)
    return splits


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    if match is None:
        raise ValueError(f'expected {{split: {{"nets": [...], "meta": ...}}}}, got {text[position:][:20]!r}')
    return match.end()
