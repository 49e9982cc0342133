"""Saves a graph's networkx view for pictures and for analysis with other tools."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import networkx as nx

from ..graph.arch_data import ArchData
from ..utils.atomic_files import replacing
from .svg import draw_svg


def to_graphml(graph: ArchData, title: str = "") -> str:
    """A graph as GraphML, which networkx, igraph, Gephi and yEd read.

    GraphML knows numbers and text alone, so lists and mappings are written as JSON.

    Args:
        graph: The graph of one network.
        title: The network's name.

    Example:
        >>> import torch
        >>> from ghn_pyg import from_module
        >>> view = nx.parse_graphml(to_graphml(from_module(torch.nn.Linear(3, 2), torch.zeros(1, 3))), node_type=int)
        >>> view.nodes[1]
        {'type': 'conv', 'name': 'weight', 'params': '["weight"]', 'shape': '[2, 3, 1, 1]'}
    """
    view = _view(graph, title)
    for attributes in (view.graph, *dict(view.nodes).values()):
        given = {name: value for name, value in attributes.items() if value is not None}
        attributes.clear()
        attributes.update(
            (name, value if isinstance(value, str) else json.dumps(value)) for name, value in given.items()
        )
    out = io.BytesIO()
    nx.write_graphml_xml(view, out)
    return out.getvalue().decode("utf-8")


def to_json(graph: ArchData, title: str = "") -> str:
    """A graph as JSON, for :func:`networkx.node_link_graph` and D3.

    Args:
        graph: The graph of one network.
        title: The network's name.

    Example:
        >>> import torch
        >>> from ghn_pyg import from_module
        >>> json.loads(to_json(from_module(torch.nn.Linear(3, 2), torch.zeros(1, 3))))["edges"]
        [{'source': 0, 'target': 1}, {'source': 1, 'target': 2}]
    """
    return json.dumps(nx.node_link_data(_view(graph, title), edges="edges"), indent=1) + "\n"


def to_svg(graph: ArchData, title: str = "") -> str:
    """A graph as a picture; see :func:`~ghn_pyg.viz.svg.draw_svg`.

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
"""What a file's suffix makes of a graph."""


def save_view(graph: ArchData, path: str | os.PathLike[str], title: str = "") -> None:
    """Writes a graph as GraphML, JSON or SVG, by the suffix of the file.

    Args:
        graph: The graph of one network.
        path: The file; one that exists is replaced once the new one is complete.
        title: The network's name.

    Raises:
        ValueError: If the suffix is none of :data:`FORMATS`.
        OSError: If the file cannot be written; what was there before stays.

    Example:
        >>> save_view(graph, "resnet18.svg", "resnet18")  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"cannot save a graph as {path.name!r}, expected a file that ends in {', '.join(FORMATS)}")
    content = FORMATS[path.suffix](graph, title)
    with replacing(path) as unfinished:
        unfinished.write_text(content, encoding="utf-8")


def _view(graph: ArchData, title: str) -> nx.DiGraph:
    view: Any = graph.to_networkx()
    view.graph.update(name=title, kept=dict(graph.kept), tied=dict(graph.tied))
    return view
