"""How fast are training architectures sampled, and how are they distributed? ``python -m benchmarks.deepnets``

On one thread: architectures per second, with graph, distances and network, compared with tracing the network; growth
with depth; reading the published file format; statistics of sampled architectures; and the bias towards small networks
when large meta-batches are dropped.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from ghn_pyg import from_module
from ghn_pyg.families.deepnets.architecture import Architecture
from ghn_pyg.families.deepnets.architecture_sampling import sample
from ghn_pyg.families.deepnets.genotype import DARTS
from ghn_pyg.families.deepnets.graph_from_architecture import architecture_graph
from ghn_pyg.families.deepnets.meta_batches import NODE_BUDGET
from ghn_pyg.families.deepnets.network import Network
from ghn_pyg.families.deepnets.published_export import export
from ghn_pyg.families.deepnets.published_hdf5 import PublishedDeepNets

from .harness import Run, arguments, measure, number, slope, table
from .published import FIGURES, check_goals, goal_table

DEPTHS: Final = (4, 8, 16, 32, 64, 128)
_META_BATCH: Final = 8


def meta_network(architecture: Architecture) -> Network:
    with torch.device("meta"):
        return Network(architecture)


def call(function: Callable[[int], Any], positions: Iterable[int]) -> None:
    """Calls a function with each position."""
    for position in positions:
        function(position)


def rates(count: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds per architecture for each way to get it; every repeat uses new architectures."""
    drawn = [sample("train", position) for position in range(count * (repeats + 1))]

    def with_network(position: int) -> None:
        architecture = sample("train", position)
        architecture_graph(architecture)
        meta_network(architecture)

    ways: dict[str, Callable[[int], Any]] = {
        "sample": lambda position: sample("train", position),
        "graph and distances": lambda position: architecture_graph(drawn[position]),
        "network on the meta device": lambda position: meta_network(drawn[position]),
        "sample, graph and distances": lambda position: architecture_graph(sample("train", position)),
        "sample, graph, distances and network": with_network,
        "tracing the network instead": lambda position: from_module(meta_network(drawn[position])),
    }
    rows = []
    for name, function in ways.items():
        starts = itertools.count(0, count)
        number_of_calls = max(count // 5, 1) if name.startswith("tracing") else count
        timing = measure(
            lambda start, f=function, n=number_of_calls: call(f, range(start, start + n)),
            repeats,
            setup=lambda starts=starts: (next(starts),),
        )
        seconds = [value / number_of_calls for value in timing.seconds]
        rows.append({"way": name, "seconds": statistics.median(seconds), "all": seconds})
    return rows


def reading(count: int, repeats: int) -> dict[str, Any]:
    """Seconds per architecture read from a file in the published format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "deepnets1m_train.hdf5")
        writing = measure(lambda: export({"train": (sample("train", i) for i in range(count))}, path), 1, budget=0.0)
        with PublishedDeepNets(path, "train") as split:
            timing = measure(lambda: call(split.get, range(count)), repeats)
        size = path.stat().st_size
    return {
        "seconds": timing.median / count,
        "all": [value / count for value in timing.seconds],
        "write_seconds": writing.median / count,
        "bytes": size / count,
    }


def depth(cells: int, repeats: int) -> dict[str, Any]:
    """Seconds for a network with this number of DARTS cells."""
    architecture = Architecture(genotype=DARTS, cells=cells)
    graph = measure(lambda: architecture_graph(architecture), repeats)
    network = measure(lambda: meta_network(architecture), repeats)
    nodes = graph.result.num_nodes
    return {"cells": cells, "nodes": nodes, "graph_seconds": graph.median, "network_seconds": network.median}


def node_counts(count: int) -> list[int]:
    return [architecture_graph(sample("train", index)).num_nodes for index in range(count)]


def dropping(nodes: Sequence[int], size: int = _META_BATCH, budget: int = NODE_BUDGET) -> dict[str, float]:
    """Statistics of meta-batches after those over the node budget are dropped, as published training code does."""
    batches = [nodes[start : start + size] for start in range(0, len(nodes) - size + 1, size)]
    remaining = [batch for batch in batches if sum(batch) <= budget]
    drawn, kept = ([value for batch in some for value in batch] for some in (batches, remaining))
    large = sorted(drawn)[int(0.95 * len(drawn))]
    shares = [sum(value >= large for value in some) / max(len(some), 1) for some in (drawn, kept)]
    return {
        "dropped": 1 - len(remaining) / len(batches),
        "mean_drawn": statistics.mean(drawn),
        "mean_kept": statistics.mean(kept) if kept else 0.0,
        "largest_drawn": max(drawn),
        "largest_kept": max(kept, default=0),
        # Share of the largest 5 % of the architectures after dropping, relative to before.
        "large_kept": shares[1] / shares[0],
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "deepnets")
    parser.add_argument("--count", type=int, help="architectures for each rate; 300 by default")
    options = parser.parse_args(argv)
    options.threads = options.threads or 1
    count = options.count or (5 if options.quick else 300)
    repeats = options.repeats or (1 if options.quick else 5)
    run = Run("deepnets", options)
    speeds = rates(count, repeats)
    for row in speeds:
        run.note(f"{row['way']}: {number(1 / row['seconds'])} per second")
    file = reading(count, repeats)
    run.note(f"reading: {number(1e3 * file['seconds'])} ms")
    growth = [depth(cells, repeats) for cells in (DEPTHS[:2] if options.quick else DEPTHS)]
    run.probe.sample()
    nodes = node_counts(10 * count if options.quick else 10_000)
    run.note(f"{len(nodes)} architectures have {number(statistics.mean(nodes))} nodes in the mean")
    published = FIGURES["deepnets"]
    seconds = {row["way"]: row["seconds"] for row in speeds}
    values = {("rate", way): {"here": 1 / value} for way, value in seconds.items()}
    values["speedup", "reading"] = {"raw": published["reading_seconds"] / file["seconds"]}
    goals = check_goals("deepnets", values)
    bias = dropping(nodes)
    summary = {"mean": statistics.mean(nodes), "std": statistics.stdev(nodes), "min": min(nodes), "max": max(nodes)}
    run.finish(
        {"rates": speeds, "reading": file, "growth": growth, "nodes": summary, "dropping": bias, "goals": goals},
        _rate_table(speeds),
        f"Reading an architecture of the published format takes {number(1e3 * file['seconds'])} ms (published: about "
        f"{1e3 * published['reading_seconds']:.0f} ms); writing one {number(1e3 * file['write_seconds'])} ms and "
        f"{number(file['bytes'] / 1e3)} kB.",
        "## Growth with depth (DARTS cells)\n\n" + _growth_table(growth),
        f"## Nodes\n\n{len(nodes):,} training architectures: mean {summary['mean']:.1f}, standard deviation "
        f"{summary['std']:.1f}, {summary['min']} to {summary['max']}. Published generator, 120 architectures: mean "
        f"{published['nodes']['mean']}, {published['nodes']['min']} to {published['nodes']['max']}.",
        _bias_text(bias),
        "## Goals\n\n" + goal_table(goals),
    )
    return 0


def _rate_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [[row["way"], number(1e3 * row["seconds"]), number(1 / row["seconds"])] for row in rows]
    generator = FIGURES["deepnets"]["generator_rate"]
    lines.append(["published generator (reference machine)", number(1e3 / generator), number(generator)])
    return table(["one thread", "ms", "per second"], lines)


def _growth_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        [str(row["cells"]), str(row["nodes"]), number(1e3 * row["graph_seconds"]), number(1e3 * row["network_seconds"])]
        for row in rows
    ]
    nodes = [row["nodes"] for row in rows]
    exponents = (slope(nodes, [row[key] for row in rows]) for key in ("graph_seconds", "network_seconds"))
    lines.append(["exponent", "", *(number(value) for value in exponents)])
    return table(["cells", "nodes", "graph and distances, ms", "network, ms"], lines)


def _bias_text(bias: dict[str, float]) -> str:
    return (
        f"## Dropping meta-batches\n\nOf meta-batches of {_META_BATCH} architectures {bias['dropped']:.1%} have more "
        f"than {NODE_BUDGET} nodes. Without them networks have {bias['mean_kept']:.1f} nodes in the mean instead of "
        f"{bias['mean_drawn']:.1f}, at most {bias['largest_kept']} instead of {bias['largest_drawn']}, and the largest "
        f"twentieth is seen {bias['large_kept']:.2f} times as often as it is drawn. `MetaBatches` drops none."
    )


if __name__ == "__main__":
    sys.exit(main())
