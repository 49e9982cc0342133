"""Exports the graph of one network to formats of other tools."""

from __future__ import annotations

import io
import json
from typing import Any

import networkx as nx

from .arch_data import ArchData


def to_graphml(graph: ArchData, title: str = "") -> str:
    """A graph as GraphML, which networkx, igraph, Gephi and yEd read.

    GraphML attributes are numbers or text, so lists and mappings are written as JSON.

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
    view = _networkx_with_title(graph, title)
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
    return json.dumps(nx.node_link_data(_networkx_with_title(graph, title), edges="edges"), indent=1) + "\n"


def _networkx_with_title(graph: ArchData, title: str) -> nx.DiGraph:
    view: Any = graph.to_networkx()
    view.graph.update(name=title, kept=dict(graph.kept), tied=dict(graph.tied))
    return view
