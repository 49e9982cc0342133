"""How fast are shortest paths of all pairs? ``python -m benchmarks.paths``

10,000 graphs of 25 nodes, the size of molecules, one by one, all at once and in batches, and one graph of 5,000 nodes,
compared with networkx.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import to_networkx

from ghn_pyg.transforms import AddShortestPathDistance, AddShortestPathEdges, AddShortestPathPairs

from .harness import Run, arguments, in_new_process, measure, measure_in_turns, number, peak_memory, table

MOLECULES, NODES, BATCH = 10_000, 25, 128
LARGE = 5_000
SLOW = ("networkx, with conversions", "networkx, search alone")
TRANSFORMS: dict[str, Callable[[Data], Data]] = {
    "AddShortestPathDistance": AddShortestPathDistance(),
    "AddShortestPathPairs(3)": AddShortestPathPairs(3),
    "AddShortestPathEdges(5)": AddShortestPathEdges(5),
}


def ring_graph(nodes: int, seed: int) -> Data:
    """A random tree with a few rings and both directions of each edge, like a molecule."""
    generator = torch.Generator().manual_seed(seed)
    child = torch.arange(1, nodes)
    back = torch.randint(1, 4, (nodes - 1,), generator=generator)
    tree = torch.stack(((child - back).clamp(min=0), child))
    rings = torch.randint(nodes, (2, nodes // 8), generator=generator)
    edges = torch.cat((tree, rings), dim=1)
    return Data(edge_index=torch.cat((edges, edges.flip(0)), dim=1), num_nodes=nodes)


def by_networkx(data: Data) -> torch.Tensor:
    """The distances by networkx, with conversions."""
    graph = to_networkx(data, to_undirected=True)
    distance = np.zeros((data.num_nodes, data.num_nodes), np.int16)
    for source, lengths in nx.all_pairs_shortest_path_length(graph):
        distance[source, list(lengths)] = list(lengths.values())
    return torch.from_numpy(distance)


def search_by_networkx(graphs: Sequence[nx.Graph]) -> None:
    """The search by networkx, without conversions."""
    for graph in graphs:
        dict(nx.all_pairs_shortest_path_length(graph))


def large(nodes: int, name: str) -> dict[str, Any]:
    """Time and memory of one large graph; runs in a new process."""
    data, transform = ring_graph(nodes, 0), TRANSFORMS[name]
    transform(ring_graph(5, 0))
    peak = peak_memory(lambda: transform(data))["over_baseline"]
    return {"seconds": measure(lambda: transform(data), 3, budget=5.0).median, "peak_bytes": peak}


def agree(graphs: Sequence[Data]) -> bool:
    """Whether all ways give the distances of networkx."""
    transform = TRANSFORMS["AddShortestPathDistance"]
    expected = [by_networkx(graph).flatten() for graph in graphs]
    ways = (
        [transform(graph) for graph in graphs],
        AddShortestPathDistance().many(graphs),
        transform(Batch.from_data_list(graphs)).to_data_list(),
    )
    return all(torch.equal(data.distance, other) for way in ways for data, other in zip(way, expected, strict=True))


def molecules(graphs: Sequence[Data], repeats: int) -> dict[str, float]:
    """Seconds per graph; slow ways are measured on a twentieth of the graphs."""
    some = graphs[: max(1, len(graphs) // 20)]
    batches = [Batch.from_data_list(graphs[start : start + BATCH]) for start in range(0, len(graphs), BATCH)]
    networks = [to_networkx(graph, to_undirected=True) for graph in some]
    distances, pairs, edges = TRANSFORMS
    ways: dict[str, tuple[Callable[[], Any], Sequence[Data]]] = {
        distances: (lambda: [TRANSFORMS[distances](graph) for graph in graphs], graphs),
        f"{distances}.many": (lambda: AddShortestPathDistance().many(graphs), graphs),
        f"{distances}, batches of {BATCH}": (lambda: [TRANSFORMS[distances](batch) for batch in batches], graphs),
        pairs: (lambda: [TRANSFORMS[pairs](graph) for graph in some], some),
        edges: (lambda: [TRANSFORMS[edges](graph) for graph in some], some),
        SLOW[0]: (lambda: [by_networkx(graph) for graph in some], some),
        SLOW[1]: (lambda: search_by_networkx(networks), some),
    }
    seconds = measure_in_turns({name: function for name, (function, _) in ways.items()}, repeats)
    return {name: median(seconds[name]) / len(measured) for name, (_, measured) in ways.items()}


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(__doc__, "paths").parse_args(argv)
    count, nodes = (20, 100) if options.quick else (MOLECULES, LARGE)
    run = Run("paths", options)
    graphs = [ring_graph(NODES, seed) for seed in range(count)]
    same = agree(graphs[: max(1, count // 20)])
    rows = molecules(graphs, options.repeats or (1 if options.quick else 5))
    run.note(f"{count:,} graphs")
    run.probe.sample()
    large = {name: in_new_process("paths:large", nodes=nodes, name=name) for name in list(TRANSFORMS)[:2]}
    run.note(f"one graph of {nodes:,} nodes")
    head = ["", "µs per graph", *(f"{name} / this" for name in SLOW)]
    lines = [[name, number(row * 1e6), *(number(rows[slow] / row) for slow in SLOW)] for name, row in rows.items()]
    large_lines = [[name, number(row["seconds"]), number(row["peak_bytes"] / 1e6)] for name, row in large.items()]
    run.finish(
        {"graphs": count, "nodes": NODES, "seconds_per_graph": rows, "large": {"nodes": nodes, **large}, "agree": same},
        f"## {count:,} graphs of {NODES} nodes\n\n" + table(head, lines),
        f"## One graph of {nodes:,} nodes\n\n" + table(["", "s", "MB"], large_lines),
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
