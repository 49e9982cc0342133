"""How long does a large language model take, and how much memory? ``python -m benchmarks.language``

A network of the size of Llama-7B on the meta device: its graph, and its prediction into safetensors shards, each in a
new process. It needs ``transformers``, and disk space for the shards, which are removed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from ghn_pyg import from_module, from_pretrained, predict_shards
from ghn_pyg.models.checkpoints.shard_reader import SavedTensors, ShardIndex

from .harness import Run, arguments, gigabytes, in_new_process, number, peak_memory, table

SIZE: Final = {"hidden_size": 4096, "num_attention_heads": 32, "intermediate_size": 11008, "vocab_size": 32000}
QUICK: Final = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 101, "vocab_size": 131}
LAYERS: Final = 32
GOAL_SECONDS: Final = 10
GOAL_BYTES: Final = 2e9


def language_model(layers: int, quick: bool) -> tuple[nn.Module, dict[str, Any]]:
    """A causal language model on the meta device, and its inputs."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(num_hidden_layers=layers, **(QUICK if quick else SIZE))
    with torch.device("meta"):
        return LlamaForCausalLM(config), {"input_ids": torch.zeros(1, 8, dtype=torch.long)}


def graph(layers: int, quick: bool) -> dict[str, Any]:
    """Builds the network and its graph; runs in a new process."""
    start = time.perf_counter()
    language_model(1, quick=True)  # imports parts of transformers
    row: dict[str, Any] = {"layers": layers, "import_seconds": time.perf_counter() - start}

    def both() -> None:
        built = time.perf_counter()
        network, inputs = language_model(layers, quick)
        traced = time.perf_counter()
        graph = from_module(network, inputs)
        row.update(
            build_seconds=traced - built,
            trace_seconds=time.perf_counter() - traced,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            nodes=graph.num_nodes,
            kept=len(graph.kept),
        )

    return {**peak_memory(both), **row}


def shards(layers: int, shard_size: int, ghn: str, folder: str, quick: bool) -> dict[str, Any]:
    """Predicts the network into shards; runs in a new process."""
    predictor = from_pretrained(ghn)
    graph = from_module(*language_model(layers, quick))
    row: dict[str, Any] = {"layers": layers, "shard_size": shard_size}

    def predict() -> None:
        start = time.perf_counter()
        index = predict_shards(predictor, graph, folder, shard_size=shard_size, dtype=torch.bfloat16, seed=0)
        row.update(
            seconds=time.perf_counter() - start,
            shards=len(set(index.weight_map.values())),
            bytes=index.metadata["total_size"],
        )

    return {**peak_memory(predict), **row}


def plain_write(folder: str) -> float:
    """Seconds to copy the shards in ``folder`` and sync the copies."""
    start = time.perf_counter()
    for source in sorted({Path(folder, file) for file in ShardIndex.read(folder).weight_map.values()}):
        target = source.with_suffix(".copy")
        with open(source, "rb") as reading, open(target, "wb") as writing:
            while chunk := reading.read(1 << 24):
                writing.write(chunk)
            writing.flush()
            os.fsync(writing.fileno())
        target.unlink()
    return time.perf_counter() - start


def finite(folder: str) -> bool:
    """Whether all predicted values are finite."""
    return all(bool(tensor.isfinite().all()) for part in SavedTensors(folder) for tensor in part.values())


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "language")
    parser.add_argument("--layers", nargs="+", type=int, help="layers of the networks that are predicted; 4 by default")
    parser.add_argument("--shard-size", type=int, help="largest size of a shard in bytes; 1 GB by default")
    parser.add_argument("--ghn", default="digits", help="a GHN; digits, which comes with the package, by default")
    parser.add_argument("--folder", help="folder for the shards; by default the temporary folder of the system")
    options = parser.parse_args(argv)
    quick = options.quick
    run = Run("language", options)
    traced = in_new_process("language:graph", layers=2 if quick else LAYERS, quick=quick)
    run.note(f"graph of {traced['nodes']} nodes: {number(traced['trace_seconds'])} s")
    rows = []
    for layers in options.layers or (2 if quick else 4,):
        # Absolute, because the new process has another working directory.
        with tempfile.TemporaryDirectory(dir=options.folder and Path(options.folder).absolute()) as folder:
            size = options.shard_size or (10_000 if quick else 10**9)
            row = in_new_process(
                "language:shards", layers=layers, shard_size=size, ghn=options.ghn, folder=folder, quick=quick
            )
            rows.append({**row, "finite": finite(folder), "copy_seconds": plain_write(folder)})
        run.probe.sample()
        run.note(f"{layers} layers, {gigabytes(row['bytes'])} GB: {number(row['seconds'])} s")
    seconds = traced["build_seconds"] + traced["trace_seconds"]
    goal = seconds < GOAL_SECONDS and traced["peak"] < GOAL_BYTES
    run.finish({"graph": traced, "goal": goal, "shards": rows}, _graph_report(traced, seconds, goal), _report(rows))
    return 0 if goal and all(row["finite"] for row in rows) else 1


def _graph_report(row: dict[str, Any], seconds: float, goal: bool) -> str:
    header = ["layers", "parameters", "nodes", "import s", "build s", "graph s", "libraries GB", "peak GB"]
    times = [number(row[f"{part}_seconds"]) for part in ("import", "build", "trace")]
    memory = [gigabytes(row["baseline"]), gigabytes(row["peak"])]
    line = [str(row["layers"]), f"{row['parameters']:,}", str(row["nodes"]), *times, *memory]
    return (
        f"## network → graph, without memory for the network\n\n{table(header, [line])}\n\n"
        f"Network and graph take {number(seconds)} s (goal: less than {GOAL_SECONDS} s), and the process "
        f"{gigabytes(row['peak'])} GB at its peak, all libraries included (goal: less than "
        f"{gigabytes(GOAL_BYTES)} GB): {'reached' if goal else 'NOT reached'}."
    )


def _report(rows: Sequence[dict[str, Any]]) -> str:
    header = ["layers", "GB", "shards", "of at most GB", "s", "GB/s", "copying s", "peak GB", "before GB", "finite"]
    lines = [
        [str(row["layers"]), gigabytes(row["bytes"]), str(row["shards"]), gigabytes(row["shard_size"]),
         number(row["seconds"]), number(row["bytes"] / row["seconds"] / 1e9), number(row["copy_seconds"]),
         gigabytes(row["peak"]), gigabytes(row["baseline"]), "yes" if row["finite"] else "NO"]
        for row in rows
    ]  # fmt: skip
    return (
        f"## graph → shards in bfloat16\n\n{table(header, lines)}\n\nPeak memory is of the whole process, before the "
        "prediction and at its peak; copying reads the shards and writes them to the same disk."
    )


if __name__ == "__main__":
    sys.exit(main())
