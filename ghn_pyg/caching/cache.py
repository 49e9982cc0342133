"""Graphs that are kept on disk, so that a network which was traced before need not be traced again."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from pathlib import Path
from typing import Any, Final

from torch import nn

from ..data import ArchData
from ..files import replacing
from ..graphs.looks import Looks
from ..graphs.module import arguments, build
from .description import Undescribable
from .fingerprint import Fingerprint, fingerprint
from .stored import from_bytes, same, to_bytes

_logger = logging.getLogger(__name__)
_OURS: Final = re.compile(r"[0-9a-f]{64}\.json|\.[0-9a-f]{32}\.json")
"""Names of files that a cache writes: graphs, and unfinished ones that a process left behind."""


class GraphCache:
    """Graphs of networks in a folder, one small file for each.

    A graph is found by a hash of all that it depends on: the tree of modules with their classes, names and attributes;
    shapes and types of parameters and buffers, and what is shared; values of buffers and other tensors; hooks; the
    inputs (values of integer ones); settings of PyTorch that a forward pass may ask for; what handlers say of their
    layers; and the code. Values of parameters do not count, nor do running statistics of batch norms, unless the
    forward pass looks at them.

    Of code, this counts: the user's own functions and classes as they are in memory, with all globals and closures that
    they use, so that a patched or edited one is noticed; the modules of installed packages that define the classes of
    the network and the functions that it is given, with ``torch`` and ``torch.nn.functional``; the versions of these
    packages and of Python. Changes deeper inside of an installed package without another version are *not* noticed,
    nor is what an installed package reads from files or the environment.

    Networks for which this cannot be found out for sure are traced every time, and the log (level ``DEBUG``) says why:
    those with objects or functions of compiled extensions, TorchScript, whole modules of the user's as values, code
    that asks for files, the environment, time or random numbers, and those that change while they are traced.

    Files are JSON with a hash. Reading one never runs code, and one that is damaged or unknown is replaced. Any number
    of processes may use a folder at the same time.

    Args:
        folder: Where the graphs are; it is made when the first one is kept.
        max_bytes: Size of all graphs together, above which those go that were not used for longest. By default all
            are kept.

    Raises:
        NotADirectoryError: If ``folder`` is a file.
        ValueError: If ``max_bytes`` is not positive.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = GraphCache(folder)
        ...     for _ in range(2):  # the second time without a trace
        ...         graph = cache.from_module(torch.nn.Linear(3, 2), torch.zeros(1, 3))
        >>> graph.node_names
        ['input', 'weight', 'bias']
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"a cache of graphs needs a folder, and {self.folder} is a file")
        if max_bytes is not None and max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive or None, got {max_bytes}")
        self.max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"GraphCache({str(self.folder)!r}, max_bytes={self.max_bytes})"

    def from_module(self, model: nn.Module, example_inputs: Any = None, cutoff: int = 50) -> ArchData:
        """The graph that :func:`~ghn_pyg.from_module` builds, from the folder if it is there.

        If it cannot be written, a warning says why.

        Args:
            model: The network.
            example_inputs: What its forward pass takes.
            cutoff: Largest shortest-path distance that is kept.

        Raises:
            TypeError: As :func:`~ghn_pyg.from_module`.
            ValueError: As :func:`~ghn_pyg.from_module`.
            TracingError: As :func:`~ghn_pyg.from_module`.
        """
        args, kwargs = arguments(model, example_inputs)
        looks = Looks()
        try:
            before = fingerprint(model, args, kwargs, cutoff)
        except Undescribable as fault:
            _logger.debug("the graph of %s is not kept: %s", type(model).__name__, fault)
            return build(model, args, kwargs, cutoff, looks)
        if (graph := self._read(before.key, cutoff)) is not None:
            return graph
        graph = build(model, args, kwargs, cutoff, looks)
        try:
            _check(before, fingerprint(model, args, kwargs, cutoff), looks)
        except Undescribable as fault:
            _logger.debug("the graph of %s is not kept: %s", type(model).__name__, fault)
        else:
            self._write(graph, before.key, cutoff)
        return graph

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _read(self, key: str, cutoff: int) -> ArchData | None:
        try:
            text = self._path(key).read_bytes()
        except OSError:
            return None
        if self.max_bytes is not None:
            with contextlib.suppress(OSError):  # another process removed it, or the disk is read-only
                os.utime(self._path(key))
        return from_bytes(text, key, cutoff)

    def _write(self, graph: ArchData, key: str, cutoff: int) -> None:
        text = to_bytes(graph, key)
        again = from_bytes(text, key, cutoff)
        assert again is not None, "a graph cannot be read again"
        assert same(again, graph), "a graph has fields that are not stored"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._path(key)) as unfinished:
                unfinished.write_bytes(text)
            if self.max_bytes is not None:
                self._make_room(self.max_bytes)
        except OSError as error:
            warnings.warn(f"the graph is complete, but could not be kept: {error}", stacklevel=3)

    def _make_room(self, max_bytes: int) -> None:
        """Removes what was not used for longest; another process may be doing the same."""
        found = []
        for entry in os.scandir(self.folder):
            if _OURS.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        size = sum(size for _, size, _ in found)
        for _, bytes_, path in sorted(found):
            if size <= max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            size -= bytes_


def _check(before: Fingerprint, after: Fingerprint, looks: Looks) -> None:
    """Whether the fingerprint from before a trace stands for what the trace gave."""
    if looks.rules:
        raise Undescribable("a rule was asked about a parameter, and may have looked at its values")
    if looks.random:
        raise Undescribable("its forward pass draws random numbers")
    if not looks.values.isdisjoint(before.unread):
        raise Undescribable("its forward pass looks at running statistics")
    if after.key != before.key:
        raise Undescribable("it changed while it was traced")
