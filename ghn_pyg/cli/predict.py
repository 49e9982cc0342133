"""``ghn-pyg predict``: predicts the parameters of a network."""

from __future__ import annotations

import enum
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..version import __version__
from . import options
from .files import load_ghn, safetensors_file
from .options import option
from .terminal import counted, fail, print_rows, status, user_errors
from .trace_network import check_networks, describe_parameters, kept_rows, trace


class Precision(enum.StrEnum):
    """Types of predicted parameters."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def predict(
    source: options.Network,
    ghn: options.GhnOption,
    out: Annotated[Path | None, option("FILE.safetensors", "Save the predicted parameters by name.")] = None,
    shards: Annotated[Path | None, option("FOLDER", "Save shards one after another, for networks of any size.")] = None,
    shard_size: Annotated[float, option("GB", "Largest size of a shard.", min=1e-6)] = 2.0,
    seed: options.Seed = 0,
    keep_classifier: options.KeepClassifier = False,
    dtype: Annotated[Precision, typer.Option(help="Type of the predicted parameters.")] = Precision.float32,
    device: options.Device = "cpu",
    inputs: options.Inputs = None,
    strict: options.Strict = False,
) -> None:
    """Predict the parameters of a network."""
    options.check_file(out, [".safetensors"])
    if shard_size == float("inf"):
        fail("--shard-size expected a number of gigabytes, got inf; a large one, such as 1000, gives a single shard")
    if out is not None and shards is not None:
        fail("expected either --out or --shards, got both")
    input_shapes = check_networks([source], inputs)
    options.check_device(device)
    network, graph, graph_seconds = trace(source, input_shapes, strict)
    model = load_ghn(ghn, device)
    import torch

    from ..tracing.parameter_coverage import CoverageError

    settings: dict[str, Any] = {"keep_classifier": keep_classifier, "seed": seed, "dtype": getattr(torch, dtype)}
    norm_rows, saved_rows = [], []
    with status(f"Predicting {source}"):
        start = time.perf_counter()
        if shards is not None:
            from ..models.sharded_prediction import predict_shards

            metadata = {"architecture": source, "ghn": ghn, "seed": seed}
            with user_errors(CoverageError, OSError):
                model.check_classes(graph, keep_classifier, strict)
                index = predict_shards(
                    model, graph, shards, shard_size=round(1e9 * shard_size), metadata=metadata, **settings
                )
            predicted, kept = [*index.weight_map], index.metadata["kept"]
            saved_rows = [("saved", f"{shards}, {counted(len(set(index.weight_map.values())), 'shard')}")]
        else:
            with user_errors(CoverageError):
                prediction = model.predict(graph, strict=strict, **settings)
            predicted, kept = [*prediction], prediction.kept
            if device != "cpu":
                torch.accelerator.synchronize(device)
        seconds = time.perf_counter() - start
    if shards is None:
        norm_rows = [("total norm", _compare_norm(prediction.total_norm(), source, ghn, keep_classifier))]
    if out is not None:
        from rich.filesize import decimal
        from safetensors.torch import save_file

        header = {"format": "pt", "ghn_pyg": __version__, "kept": json.dumps(kept)}
        with user_errors(OSError), safetensors_file(out) as unfinished:
            save_file(dict(prediction), unfinished, {**header, "architecture": source, "ghn": ghn, "seed": str(seed)})
        saved_rows = [("saved", f"{out}, {decimal(out.stat().st_size)}")]
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    rows = [
        ("graph", f"{counted(graph.num_nodes, 'node')}, {counted(graph.num_edges, 'edge')}"),
        ("predicted", describe_parameters(predicted, sizes)),
        *kept_rows(kept, sizes),
        *norm_rows,
        ("time", f"graph {graph_seconds:.2f} s, prediction {seconds:.2f} s"),
        *saved_rows,
    ]
    print_rows(f"{source} by {ghn}", rows)


def _compare_norm(norm: float, source: str, ghn: str, keep_classifier: bool) -> str:
    from ..models.published_norms import published_norm

    # A local file of a published name may be any GHN, and published norms are of all parameters.
    if keep_classifier or os.path.exists(os.path.expanduser(ghn)):
        return f"{norm:.4f}"
    published = published_norm(source, ghn.removesuffix(".pt"))
    return f"{norm:.4f}" + (f", published {published:.4f} ({norm / published - 1:+.4%})" if published else "")
