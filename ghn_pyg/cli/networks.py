"""Commands on networks: their graphs and their parameters."""

from __future__ import annotations

import collections
import enum
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..utils.suggest import some
from ..version import __version__
from .console import (
    GRAPH_SUFFIXES,
    Device,
    Seed,
    check_device,
    check_output,
    counted,
    fail,
    make_table,
    print_rows,
    status,
    user_errors,
)
from .network_arguments import Inputs, Network, Strict, build, check_sources

if TYPE_CHECKING:
    import torch

    from ..graph.arch_data import ArchData
    from ..models.checkpoints.shard_reader import ShardIndex
    from ..models.ghn import GHN
    from ..models.prediction import Prediction
    from ..zoo.names import InputSpec


class Precision(enum.StrEnum):
    """Types that predicted parameters can be saved as."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def predict(
    source: Network,
    ghn: Annotated[
        str,
        typer.Option(
            metavar="NAME_OR_FILE",
            help="The GHN: a file or folder, a published name such as ghn3tm8, or user/repository of the hub.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.safetensors", help="Where to save the predicted parameters by name."),
    ] = None,
    shards: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Save shards one after another instead: for networks of any size."),
    ] = None,
    shard_size: Annotated[float, typer.Option(min=1e-6, metavar="GB", help="Largest size of a shard.")] = 2.0,
    seed: Seed = 0,
    keep_classifier: Annotated[
        bool, typer.Option("--keep-classifier", help="Leave the classification layer out.")
    ] = False,
    dtype: Annotated[Precision, typer.Option(help="Type of the predicted parameters.")] = Precision.float32,
    device: Device = "cpu",
    inputs: Inputs = None,
    strict: Strict = False,
) -> None:
    """Predicts the parameters of a network."""
    if out is not None:
        check_output(out, [".safetensors"], "the parameters")
    if out is not None and shards is not None:
        fail("give either --out or --shards")
    specs = check_sources([source], inputs)
    check_device(device)
    network, graph, graph_time = _trace(source, specs, strict)
    import torch

    from ..models.checkpoints.errors import CheckpointError
    from ..models.checkpoints.locate import resolve
    from ..models.ghn import GHN
    from ..models.published_norms import published_norm

    local = os.path.exists(os.path.expanduser(ghn))
    with user_errors(CheckpointError):
        path = resolve(ghn)  # shows its own progress
        with status(f"Loading {ghn}"):
            model = GHN.from_pretrained(path).to(device)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    rows = [("graph", f"{counted(graph.num_nodes, 'node')}, {counted(graph.num_edges, 'edge')}")]
    if shards is not None:
        began = time.perf_counter()
        with status(f"Predicting {source}"), user_errors(OSError):
            index = _predict_shards(model, graph, shards, shard_size, dtype, keep_classifier, source, ghn, seed)
        rows += [
            ("predicted", _amount(index.weight_map, sizes)),
            *_kept_rows(index.metadata["kept"], sizes),
            ("time", f"graph {graph_time:.2f} s, prediction {time.perf_counter() - began:.2f} s"),
            ("saved", f"{shards}, {counted(len(set(index.weight_map.values())), 'shard')}"),
        ]
        return print_rows(f"{source} by {ghn}", rows)
    with status(f"Predicting {source}"):
        began = time.perf_counter()
        prediction = model.predict(graph, keep_classifier=keep_classifier, seed=seed, dtype=getattr(torch, dtype))
        if device != "cpu":
            torch.accelerator.synchronize(device)
        prediction_time = time.perf_counter() - began
    if out is not None:
        _save(out, prediction, {"architecture": source, "ghn": ghn, "seed": str(seed)})

    norm = prediction.total_norm()
    # A file of the same name may be any GHN, and the published norms are of all parameters.
    published = None if local or keep_classifier else published_norm(source, ghn.removesuffix(".pt"))
    compared = "" if published is None else f", published {published:.4f} ({norm / published - 1:+.4%})"
    rows += [
        ("predicted", _amount(prediction, sizes)),
        *_kept_rows(prediction.kept, sizes),
        ("total norm", f"{norm:.4f}{compared}"),
        ("time", f"graph {graph_time:.2f} s, prediction {prediction_time:.2f} s"),
    ]
    if out is not None:
        from rich.filesize import decimal

        rows.append(("saved", f"{out}, {decimal(out.stat().st_size)}"))
    print_rows(f"{source} by {ghn}", rows)


def _predict_shards(
    ghn: GHN,
    graph: ArchData,
    folder: Path,
    gigabytes: float,
    dtype: Precision,
    keep_classifier: bool,
    source: str,
    name: str,
    seed: int,
) -> ShardIndex:
    import torch

    from ..models.sharded_prediction import predict_shards

    return predict_shards(
        ghn,
        graph,
        folder,
        shard_size=round(1e9 * gigabytes),
        dtype=getattr(torch, dtype),
        seed=seed,
        keep_classifier=keep_classifier,
        metadata={"architecture": source, "ghn": name, "seed": seed},
    )


def graph(
    source: Network,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to save the graph, as .graphml, .json or .svg (a picture)."),
    ] = None,
    inputs: Inputs = None,
    strict: Strict = False,
) -> None:
    """Shows the graph of a network."""
    if out is not None:
        check_output(out, GRAPH_SUFFIXES, "a graph")
    specs = check_sources([source], inputs)
    with status(f"Building {source}"):
        import networkx as nx

        from ..viz.save import save_view

    network, data, seconds = _trace(source, specs, strict)
    if out is not None:
        with user_errors(OSError):
            save_view(data, out, source)

    nodes: collections.Counter[str] = collections.Counter()
    parameters: collections.Counter[str] = collections.Counter()
    for kind, specs in zip(data.node_types, data.params, strict=True):
        nodes[kind] += 1
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
        ("predicted", _amount([spec.name for specs in data.params for spec in specs], sizes)),
        *_kept_rows(data.kept, sizes),
        ("time", f"{seconds:.2f} s"),
        *([("saved", str(out))] if out is not None else []),
    ]
    print_rows(source, rows, table)


def _trace(source: str, inputs: Sequence[InputSpec], strict: bool) -> tuple[torch.nn.Module, ArchData, float]:
    """The network without memory, its graph, and how long that took."""
    network, example_inputs = build(source, inputs)
    with status(f"Following {source}"):
        from ..tracing.parameter_coverage import check_coverage
        from ..tracing.trace import TracingError, from_module

        began = time.perf_counter()
        with user_errors(ValueError, TypeError, TracingError):
            graph = from_module(network, example_inputs)
            seconds = time.perf_counter() - began
            if strict:
                check_coverage(graph)
    return network, graph, seconds


def _save(out: Path, prediction: Prediction, metadata: Mapping[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from ..utils.atomic_files import replacing

    header = {"format": "pt", "ghn_pyg": __version__, "kept": json.dumps(prediction.kept), **metadata}
    with status(f"Saving {out}"), user_errors(OSError), replacing(out) as unfinished:
        try:
            save_file(dict(prediction), unfinished, header)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def _kept_rows(kept: Mapping[str, str], sizes: Mapping[str, int]) -> list[tuple[str, str]]:
    """Kept parameters, one row for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in kept.items():
        reasons.setdefault(reason, []).append(name)
    rows = [("kept", f"{_amount(names, sizes)}: {reason} ({some(names)})") for reason, names in reasons.items()]
    return rows or [("kept", "none")]


def _amount(names: Sequence[str] | Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    return f"{counted(len(names), 'tensor')}, {counted(sum(sizes[name] for name in names), 'parameter')}"
