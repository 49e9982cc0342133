"""``ghn-pyg graph``: summarises the graph of a network, and draws it."""

from __future__ import annotations

import collections
import math

from . import options
from .terminal import make_table, print_rows, status, user_errors
from .trace_network import check_networks, describe_parameters, kept_rows, trace


def graph(
    source: options.Network,
    out: options.GraphFile = None,
    inputs: options.Inputs = None,
    strict: options.Strict = False,
) -> None:
    """Summarise the graph of a network, and draw it."""
    options.check_file(out, options.GRAPH_SUFFIXES)
    input_shapes = check_networks([source], inputs)
    with status(f"Building {source}"):
        import networkx as nx

        from ..viz.save import save_view

    network, data, seconds = trace(source, input_shapes, strict)
    if out is not None:
        with user_errors(OSError):
            save_view(data, out, source)

    nodes = collections.Counter(data.node_types)
    parameters: collections.Counter[str] = collections.Counter()
    for kind, specs in zip(data.node_types, data.params, strict=True):
        parameters[kind] += sum(math.prod(spec.shape) for spec in specs)
    table = make_table("node type", "nodes", "parameters")
    for kind, number in nodes.most_common():
        table.add_row(kind, f"{number:,}", f"{parameters[kind]:,}" if parameters[kind] else "")
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    rows = [
        ("nodes", f"{data.num_nodes:,}"),
        ("edges", f"{data.num_edges:,}"),
        ("depth", f"{nx.dag_longest_path_length(data.to_networkx())} edges on the longest path"),
        ("distance", f"{int(data.distance.max())} edges at most on the shortest path between two nodes, cut at 50"),
        ("predicted", describe_parameters([spec.name for specs in data.params for spec in specs], sizes)),
        *kept_rows(data.kept, sizes),
        ("time", f"{seconds:.2f} s"),
    ]
    if out is not None:
        rows.append(("saved", str(out)))
    print_rows(source, rows, table)
