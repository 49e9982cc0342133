"""How do time and memory grow with the number of nodes? ``python -m benchmarks.growth``

Deep synthetic networks from 50 to 5,000 nodes, each in a new process: tracing, GHN-3's encoder and the whole
prediction, with exponents of growth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ghn_pyg import from_module

from . import textbook
from .harness import Run, arguments, available_memory, in_new_process, measure, number, peak_memory, slope, table
from .networks import IMAGE, build_ghn, deep_network

SIZES = (50, 100, 200, 500, 1000, 2000, 5000)
STAGES = ("tracing", "encoder", "prediction")
_TEXTBOOK_NODES = 1000
_LARGE = 500


def size(nodes: int, ghn: str, repeats: int) -> dict[str, Any]:
    """Times and peak memory of one network; runs in a new process."""
    network, image = deep_network(nodes), torch.randn(IMAGE)
    predictor = build_ghn(ghn)
    predictor.predict(from_module(deep_network(20), image))  # loads libraries
    graph = from_module(network, image)
    reference = textbook.TextbookGHN.of(predictor)
    functions: dict[str, Callable[[], Any]] = {
        "tracing": lambda: from_module(network, image),
        "encoder": lambda: predictor.embed(graph),
        "prediction": lambda: predictor.predict(graph),
    }
    slow: dict[str, Callable[[], Any]] = {
        "tracing": lambda: textbook.trace(network, image),
        "encoder": lambda: reference.embed(graph),
        "prediction": lambda: reference.predict(graph),
    }
    row: dict[str, Any] = {
        "nodes": graph.num_nodes,
        "distance_bytes": graph.distance.numel() * graph.distance.element_size(),
    }
    with torch.no_grad():
        for stage, function in functions.items():
            peak = peak_memory(function)["over_baseline"]
            timing = measure(function, repeats, budget=4.0)
            row[stage] = {"seconds": timing.median, "all": timing.seconds, "peak_bytes": peak}
        fits = available_memory() > 2 * reference.memory(graph)
        if graph.num_nodes <= 1.1 * _TEXTBOOK_NODES and fits:
            for stage, function in slow.items():
                row[stage]["textbook_peak_bytes"] = peak_memory(function)["over_baseline"]
                row[stage]["textbook_seconds"] = measure(function, min(repeats, 3), budget=2.0).median
    return row


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "growth")
    parser.add_argument("--nodes", nargs="+", type=int, help="numbers of nodes; from 50 to 5,000 by default")
    parser.add_argument("--ghn", help="a preset; ghn3tm8 by default")
    options = parser.parse_args(argv)
    sizes = options.nodes or ((50, 100) if options.quick else SIZES)
    ghn = options.ghn or ("tiny" if options.quick else "ghn3tm8")
    repeats = options.repeats or (1 if options.quick else 7)
    run = Run("growth", options)
    rows = []
    for nodes in sizes:
        rows.append(in_new_process("growth:size", nodes=nodes, ghn=ghn, repeats=repeats))
        run.probe.sample()
        run.note(f"{rows[-1]['nodes']} nodes: " + ", ".join(f"{s} {number(rows[-1][s]['seconds'])} s" for s in STAGES))
    exponents = {stage: _exponents(rows, stage) for stage in STAGES}
    run.finish({"ghn": ghn, "rows": rows, "exponents": exponents}, *(_report(rows, s, exponents[s]) for s in STAGES))
    return 0


def _exponents(rows: Sequence[dict[str, Any]], stage: str) -> dict[str, float | None]:
    """Slopes of log(value) over log(nodes), for all sizes and for the large ones, where constant costs are small."""
    slopes = {}
    for key in ("seconds", "peak_bytes", "textbook_seconds", "textbook_peak_bytes"):
        for name, least in (("", 0), (" of 500 nodes and more", _LARGE - 10)):
            chosen = [row for row in rows if row["nodes"] >= least and key in row[stage]]
            slopes[key + name] = slope([row["nodes"] for row in chosen], [row[stage][key] for row in chosen])
    return slopes


def _report(rows: Sequence[dict[str, Any]], stage: str, exponents: dict[str, float | None]) -> str:
    lines = []
    for row in rows:
        here = row[stage]
        line = [str(row["nodes"]), number(here["seconds"]), number(here["peak_bytes"] / 1e6)]
        reference, peak = here.get("textbook_seconds"), here.get("textbook_peak_bytes")
        line += [number(reference), number(None if peak is None else peak / 1e6)]
        lines.append([*line, number(reference / here["seconds"] if reference else None)])
    keys = ("seconds", "peak_bytes", "textbook_seconds", "textbook_peak_bytes")
    for title, suffix in (("exponent", ""), ("exponent from 500 nodes", " of 500 nodes and more")):
        lines.append([title, *(number(exponents[key + suffix]) for key in keys), ""])
    return f"## {stage}\n\n" + table(["nodes", "s", "MB", "textbook s", "textbook MB", "ratio"], lines)


if __name__ == "__main__":
    sys.exit(main())
