"""How fast does a network become a graph? ``python -m benchmarks.tracing``

``from_module`` on torchvision's networks, compared with a textbook implementation in the same run, with the published
package where it is installed, and with published times.
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np

from ghn_pyg import PRIMITIVES, ArchData, from_module
from ghn_pyg.zoo.torchvision_models import build

from . import published_package, textbook
from .harness import Run, arguments, geometric_mean, gigabytes, in_new_process, measure, number, peak_memory, table
from .networks import QUICK, SEVEN
from .published import FIGURES, check_goals, goal_table, published_seconds, speedup


def same_graph(ours: ArchData, theirs: tuple[nx.DiGraph, np.ndarray]) -> bool:
    """Whether two graphs agree in node types, number of edges and the sum of all distances."""
    graph, distances = theirs
    types = Counter(PRIMITIVES[kind] for kind in ours.node_type.tolist())
    return (
        types == Counter(kind for _, kind in graph.nodes(data="type"))
        and ours.edge_index.size(1) == graph.number_of_edges()
        and int(ours.distances().sum()) == int(distances.sum())
    )


def memory(network: str, method: str) -> dict[str, int]:
    """Peak memory of tracing a network; runs in a new process."""
    model = build(network)
    functions: dict[str, Any] = {"ours": from_module, "textbook": textbook.trace}
    from_module(build("alexnet"))  # loads libraries
    return peak_memory(lambda: functions[method](model))


def measured(network: str, repeats: int, package: bool) -> dict[str, Any]:
    model = build(network)
    ours = measure(lambda: from_module(model), repeats)
    reference = measure(lambda: textbook.trace(model), min(repeats, 3))
    row = {
        "network": network,
        "nodes": ours.result.num_nodes,
        "edges": ours.result.edge_index.size(1),
        "seconds": ours.median,
        "all": ours.seconds,
        "textbook_seconds": reference.median,
        "same_graph": same_graph(ours.result, reference.result),
    }
    if package:
        theirs = measure(published_package.trace, min(repeats, 3), setup=lambda: (copy.deepcopy(model),))
        row["package_seconds"] = theirs.median
    return row


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "tracing")
    parser.add_argument("--networks", nargs="+", help="torchvision networks; seven by default")
    options = parser.parse_args(argv)
    networks = options.networks or (QUICK if options.quick else SEVEN)
    repeats = options.repeats or (1 if options.quick else 15)
    run = Run("tracing", options)
    if why := published_package.missing():
        run.note(why)
    rows = []
    for network in networks:
        rows.append(measured(network, repeats, package=why is None))
        run.probe.sample()
        run.note(f"{network}: {number(rows[-1]['seconds'])} s")
    largest = max(rows, key=lambda row: row["nodes"])["network"]
    peaks = {
        method: in_new_process("tracing:memory", network=largest, method=method) for method in ("ours", "textbook")
    }
    averages = {key: geometric_mean(rows, key) for key in ("seconds", "textbook_seconds", "package_seconds")}
    extra = {method: peak["over_baseline"] for method, peak in peaks.items()}
    product = run.probe.median
    seconds = {row["network"]: row["seconds"] for row in rows}
    if tuple(networks) == SEVEN:
        seconds["mean"] = averages["seconds"]
    faster = {
        name: speedup(published_seconds(FIGURES["tracing"], name), value, product) for name, value in seconds.items()
    }
    goals = check_goals("tracing", {("speedup", name): value for name, value in faster.items()})
    run.finish(
        {"rows": rows, "geometric_mean": averages, "speedup": faster, "goals": goals, "memory": {largest: peaks}},
        _report(rows, averages, faster),
        f"Peak memory of tracing {largest}, over what the process held before: {gigabytes(extra['ours'])} GB; "
        f"textbook {gigabytes(extra['textbook'])} GB.",
        goal_table(goals),
    )
    return 0 if all(row["same_graph"] for row in rows) else 1


def _report(rows: Sequence[dict[str, Any]], averages: dict[str, Any], faster: dict[str, Any]) -> str:
    header = ["network", "nodes", "ours", "textbook", "ratio", "same graph", "published", "ratio", "normalised"]
    package = "package_seconds" in rows[0]
    lines = []
    for row in [*rows, {"network": "mean", "nodes": "", **averages}]:
        name, published = row["network"], published_seconds(FIGURES["tracing"], row["network"])
        ratio = faster.get(name) or {}
        lines.append(
            [
                "geometric mean" if name == "mean" else name,
                str(row["nodes"]),
                number(row["seconds"]),
                number(row["textbook_seconds"]),
                number(row["textbook_seconds"] / row["seconds"]),
                {True: "yes", False: "NO", None: ""}[row.get("same_graph")],
                number(published),
                number(ratio.get("raw")),
                number(ratio.get("normalised")),
                *([number(row["package_seconds"]), number(row["package_seconds"] / row["seconds"])] if package else []),
            ]
        )
    return table([*header, *(["package here", "ratio"] if package else [])], lines)


if __name__ == "__main__":
    sys.exit(main())
