"""Saves graphs as pictures, GraphML or JSON, by the suffix of the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..graph.arch_data import ArchData
from ..graph.export import to_graphml, to_json
from ..utils.atomic_files import replacing
from .svg import draw_svg


def to_svg(graph: ArchData, title: str = "") -> str:
    """Draws a graph as SVG; see :func:`~ghn_pyg.viz.svg.draw_svg`.

    Args:
        graph: The graph of one network.
        title: The network's name.

    Example:
        >>> import torch
        >>> from ghn_pyg import from_module
        >>> to_svg(from_module(torch.nn.Linear(3, 2), torch.zeros(1, 3)))[:38]
        '<svg xmlns="http://www.w3.org/2000/svg'
    """
    return draw_svg(graph.to_networkx(), title)


FORMATS: Final[dict[str, Callable[[ArchData, str], str]]] = {
    ".graphml": to_graphml,
    ".json": to_json,
    ".svg": to_svg,
}
"""The function that writes each type of file."""


def save_view(graph: ArchData, path: str | os.PathLike[str], title: str = "") -> None:
    """Saves a graph as GraphML, JSON or SVG, by the suffix of the file.

    Args:
        graph: The graph of one network.
        path: The file. An existing file is replaced once the new one is complete.
        title: The network's name.

    Raises:
        ValueError: If :data:`FORMATS` does not have the suffix.
        OSError: If the file cannot be written. An existing file is kept then.

    Example:
        >>> save_view(graph, "resnet18.svg", "resnet18")  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"cannot save a graph as {path.name!r}, expected a file that ends in {', '.join(FORMATS)}")
    content = FORMATS[path.suffix](graph, title)
    with replacing(path) as unfinished:
        unfinished.write_text(content, encoding="utf-8")
