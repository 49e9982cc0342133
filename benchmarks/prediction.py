"""How fast are all parameters of a network predicted, and how much memory does it take?

``python -m benchmarks.prediction``

For each GHN and network, from an existing graph: prediction in place (``ghn.initialize``) and as tensors
(``ghn.predict``), compared with the time of the required arithmetic at the speed of matrix products, with a textbook
implementation in the same run, which must give the same values, and with published times.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import Any

import psutil
import torch

from ghn_pyg import GHN, from_module
from ghn_pyg.zoo.torchvision_models import build

from . import published_package
from .harness import (
    GB,
    Run,
    arguments,
    available_memory,
    geometric_mean,
    gigabytes,
    in_new_process,
    measure,
    number,
    peak_memory,
    table,
)
from .networks import QUICK, SEVEN, build_ghn, config_of, operations, weight_bytes
from .published import FIGURES, check_goals, goal_table, published_seconds, speedup
from .textbook import TextbookGHN

_TOLERANCE = 1e-4
_LARGE = 100_000_000
"""Number of parameters above which the textbook predicts only the first network."""


def largest_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The largest difference of two values, relative to the largest value of their tensor."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in ours)


def memory(ghn: str, network: str, method: str) -> dict[str, int]:
    """Peak memory of a prediction; runs in a new process.

    ``over_baseline`` is the memory of the prediction, ``over_weights`` that of the process without the GHN's weights,
    which includes the libraries and the network.
    """
    libraries = psutil.Process().memory_info().rss
    model = build(network)
    graph = from_module(model)
    predictor = build_ghn(ghn)
    reference = TextbookGHN.of(predictor)
    functions: dict[str, Any] = {
        "initialize": lambda: predictor.initialize(model, graph),
        "predict": lambda: predictor.predict(graph),
        "textbook": lambda: reference.predict(graph),
    }
    memory_bytes = peak_memory(functions[method])
    weights = weight_bytes(predictor)
    return {
        **memory_bytes,
        "over_weights": memory_bytes["peak"] - weights,
        "libraries_bytes": libraries,
        "weights_bytes": weights,
        "network_bytes": weight_bytes(model),
    }


def measured(ghn: GHN, network: str, repeats: int, run: Run, with_textbook: bool) -> dict[str, Any]:
    model = build(network)
    graph = from_module(model)
    initialize = measure(lambda: ghn.initialize(model, graph), repeats)
    predict = measure(lambda: ghn.predict(graph), repeats)
    row = {
        "network": network,
        "nodes": graph.num_nodes,
        "tensors": sum(len(specs) for specs in graph.params),
        "parameters": sum(value.numel() for value in predict.result.values()),
        "operations": operations(ghn.config, graph),
        "initialize_seconds": initialize.median,
        "predict_seconds": predict.median,
        "all": {"initialize": initialize.seconds, "predict": predict.seconds},
    }
    if with_textbook and available_memory() < 2 * TextbookGHN.of(ghn).memory(graph):
        run.note(f"{network}: too little memory for the textbook")
    elif with_textbook:
        reference = measure(lambda: TextbookGHN.of(ghn).predict(graph), min(repeats, 3), budget=3.0)
        row["textbook_seconds"] = reference.median
        same = [name for specs in graph.params for name in (spec.name for spec in specs if not spec.extra_rows)]
        # Rows of class tokens are random.
        row["difference"] = largest_difference(
            {name: predict.result[name] for name in same}, {name: reference.result[name] for name in same}
        )
    return row


def compare_package(name: str, network: str, ghn: GHN, package: Any, repeats: int) -> dict[str, float]:
    """Whole calls of ``ghn(model)``, tracing included, each on a new copy of the network."""
    model = build(network)
    ours = measure(ghn, min(repeats, 3), setup=lambda: (copy.deepcopy(model),))
    theirs = measure(
        lambda target: published_package.initialize(package, target), 3, setup=lambda: (copy.deepcopy(model),)
    )
    return {"whole_seconds": ours.median, "package_seconds": theirs.median}


def load_package(name: str, run: Run) -> Any:
    """The published package's GHN, or ``None`` and a message."""
    why = published_package.missing()
    if why is None:
        try:
            return published_package.load(name)
        except OSError as error:
            why = f"the published package has no weights of {name}: {error}"
    run.note(why)
    return None


def benchmark(name: str, networks: Sequence[str], repeats: int, run: Run) -> dict[str, Any]:
    """All measurements of a GHN."""
    ghn = build_ghn(name)
    large = sum(parameter.numel() for parameter in ghn.parameters()) > _LARGE
    package = load_package(name, run)
    rows = []
    for network in networks:
        row = measured(ghn, network, repeats, run, with_textbook=not large or network == networks[0])
        if package is not None:
            row |= compare_package(name, network, ghn, package, repeats)
        run.probe.sample()
        rows.append(row)
        run.note(f"{name}, {network}: {number(row['initialize_seconds'])} s")
    for row in rows:
        row["limit_seconds"] = row["operations"] / run.probe.rate
        row["over_limit"] = row["initialize_seconds"] / row["limit_seconds"]
    return {"ghn": name, "weights_bytes": weight_bytes(ghn), "rows": rows}


def benchmark_memory(name: str, networks: Sequence[str], run: Run, methods: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for network in networks:
        for method in methods:
            rows.append(
                {"network": network, "method": method}
                | in_new_process("prediction:memory", ghn=name, network=network, method=method)
            )
            run.note(f"{name}, {network}, {method}: {gigabytes(rows[-1]['over_baseline'])} GB")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "prediction")
    parser.add_argument("--networks", nargs="+", help="torchvision networks; seven by default")
    parser.add_argument("--ghns", nargs="+", help="presets; ghn3tm8, ghn2 and ghn3xlm16 by default")
    options = parser.parse_args(argv)
    networks = options.networks or (QUICK if options.quick else SEVEN)
    names = options.ghns or (("tiny", "tiny2") if options.quick else ("ghn3tm8", "ghn2", "ghn3xlm16"))
    repeats = options.repeats or (1 if options.quick else 7)
    run = Run("prediction", options)
    results = []
    for name in names:
        if available_memory() < needed_memory(name):
            run.note(f"{name} is left out: it needs {gigabytes(needed_memory(name))} GB of memory")
            continue
        result = benchmark(name, networks, repeats, run)
        large = result["weights_bytes"] > 4 * _LARGE
        memory_networks = (
            networks[:1] if options.quick else [n for n in ("resnet50", "efficientnet_v2_l") if n in networks]
        )
        methods = ("initialize",) if options.quick else ("initialize", "predict", *(() if large else ("textbook",)))
        result["memory"] = benchmark_memory(name, memory_networks, run, methods)
        results.append(result)
    goals = []
    for result in results:
        result |= compared(result, tuple(networks) == SEVEN, run.probe.median)
        goals += result["goals"]
    sections = [_report(result) for result in results]
    run.finish({"ghns": results, "goals": goals}, *sections, "## Goals\n\n" + goal_table(goals))
    wrong = [row for result in results for row in result["rows"] if row.get("difference", 0) > _TOLERANCE]
    return 1 if wrong else 0


def needed_memory(name: str) -> float:
    """Bytes for the weights of a GHN and a prediction."""
    with torch.device("meta"):
        return weight_bytes(GHN(config_of(name))) + 2 * GB


def compared(result: dict[str, Any], complete: bool, product: float) -> dict[str, Any]:
    """Means, ratios to published times, and goals of one GHN."""
    section = FIGURES["prediction"].get(result["ghn"])
    rows = result["rows"]
    seconds = {row["network"]: row["initialize_seconds"] for row in rows}
    keys = ("initialize_seconds", "predict_seconds", "limit_seconds", "over_limit", "textbook_seconds")
    averages = {key: geometric_mean(rows, key) for key in keys}
    if complete:
        seconds["mean"] = averages["initialize_seconds"]
    faster = {name: speedup(published_seconds(section, name), value, product) for name, value in seconds.items()}
    values: dict[tuple[str, str], Any] = {("speedup", name): value for name, value in faster.items()}
    values |= {
        ("limit", row["network"]): {
            "initialize": row["over_limit"],
            "predict": row["predict_seconds"] / row["limit_seconds"],
        }
        for row in rows
    }
    values |= {
        ("memory", peak["network"]): {
            "of the prediction": peak["over_baseline"] / GB,
            "of the process": peak["over_weights"] / GB,
        }
        for peak in result["memory"]
        if peak["method"] == "initialize"
    }
    return {"geometric_mean": averages, "speedup": faster, "goals": check_goals(result["ghn"], values)}


def _report(result: dict[str, Any]) -> str:
    section = FIGURES["prediction"].get(result["ghn"])
    package = "package_seconds" in result["rows"][0]
    header = ["network", "nodes", "tensors", "in place", "predict", "limit", "in place / limit", "textbook", "ratio"]
    header += ["largest difference", "published", "ratio", "normalised"]
    header += ["ghn(model)", "package here", "ratio"] if package else []
    lines = []
    for row in result["rows"]:
        ratio = result["speedup"].get(row["network"]) or {}
        reference = row.get("textbook_seconds")
        line = [row["network"], str(row["nodes"]), str(row["tensors"]), number(row["initialize_seconds"])]
        line += [number(row["predict_seconds"]), number(row["limit_seconds"]), number(row["over_limit"])]
        line += [number(reference), number(reference / row["initialize_seconds"] if reference else None)]
        line += [f"{row['difference']:.0e}" if "difference" in row else "–"]
        line += [number(published_seconds(section, row["network"]))]
        line += [number(ratio.get("raw")), number(ratio.get("normalised"))]
        if package:
            line += [number(row["whole_seconds"]), number(row["package_seconds"])]
            line += [number(row["package_seconds"] / row["whole_seconds"])]
        lines.append(line)
    ratio, means = result["speedup"].get("mean") or {}, result["geometric_mean"]
    reference = means["textbook_seconds"]
    average = ["geometric mean", "", "", *(number(value) for value in means.values())]
    average += [number(reference / means["initialize_seconds"] if reference else None), ""]
    average += [number(published_seconds(section, "mean")), number(ratio.get("raw")), number(ratio.get("normalised"))]
    lines.append(average + [""] * (len(header) - len(average)))
    columns = {
        "over_baseline": "of the prediction",
        "libraries_bytes": "libraries",
        "network_bytes": "network",
        "over_weights": "of the process but the weights",
        "peak": "of the process",
    }
    peaks = [[peak["network"], peak["method"], *(gigabytes(peak[key]) for key in columns)] for peak in result["memory"]]
    published = ""
    if section and "peak_gb" in section:
        published = f" Published: {section['peak_gb']} GB in all, of which {section['weights_gb']} GB are weights."
    return (
        f"## {result['ghn']}\n\n{table(header, lines)}\n\n"
        f"Peak memory in GB; the GHN's weights are {gigabytes(result['weights_bytes'])} GB.{published}\n\n"
        + table(["network", "", *columns.values()], peaks)
    )


if __name__ == "__main__":
    sys.exit(main())
