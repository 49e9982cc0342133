"""How long does a step of meta-training take, and how much memory? ``python -m benchmarks.training``

GHN-3-T, eight training architectures and 64 images of 32×32 pixels, as published. "In one graph" is the same step with
one backward pass through all networks and the GHN, which keeps the activations of all networks at once. With
``--device cuda`` the number of kernels and their total time are measured, too. The second part measures the
architectures per second of several processes with one thread each, which share a GPU. It times whole training steps,
with images, optimizer and log.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ghn_pyg import GHN
from ghn_pyg.families.deepnets.meta_batches import MetaBatch, MetaBatches
from ghn_pyg.families.deepnets.network import Network
from ghn_pyg.training.config import TrainConfig, load_config
from ghn_pyg.training.step import meta_gradient, meta_loss

from .harness import Run, arguments, call_on_device, device_peak_memory, gigabytes, measure, number, synchronized, table
from .meta_training import changed, train
from .published import FIGURES, check_goals, goal_table, speedup

RECIPE: Final = "ghn3-t-cifar10"
TINY: Final = ["ghn.hidden_channels=16", "ghn.max_channels=16", "ghn.layers=1", "meta_batch=2", "batch_size=4",
               "widths={widths: [8]}"]  # fmt: skip
_WARM, _TIMED = 3, 8
"""Warm-up steps and timed steps of several processes."""


def material(quick: bool, device: str = "cpu") -> tuple[TrainConfig, GHN, tuple[Tensor, Tensor]]:
    """The recipe, an untrained GHN and random images."""
    config = load_config(RECIPE, TINY if quick else ())
    torch.manual_seed(0)
    images = torch.randn(config.batch_size, 3, 32, 32).to(device), torch.randint(10, (config.batch_size,)).to(device)
    return config, GHN(config.ghn).to(device).train(), images


def ours(config: TrainConfig, ghn: GHN, meta_batch: MetaBatch, images: Tensor, labels: Tensor) -> None:
    """The gradient of a step as training computes it."""
    ghn.zero_grad()
    meta_gradient(ghn, meta_batch, images, labels, architectures=config.meta_batch, penalty=config.penalty)


def one_graph(config: TrainConfig, ghn: GHN, meta_batch: MetaBatch, images: Tensor, labels: Tensor) -> None:
    """The same gradient by one backward pass."""
    ghn.zero_grad()
    losses = []
    for part in meta_batch.parts:
        for prediction, architecture in zip(ghn.predict(part, differentiable=True), part.architecture, strict=True):
            with images.device:
                network = Network(architecture, 10, 32).train()
            logits = torch.func.functional_call(network, dict(prediction), (images,))
            losses.append(meta_loss(logits, labels, [*prediction.values()], config.penalty))
    torch.stack(losses).mean().backward()


METHODS: Final[dict[str, Callable[..., None]]] = {"ours": ours, "one_graph": one_graph}


def batches(config: TrainConfig) -> MetaBatches:
    return MetaBatches(config.meta_batch, num_classes=10, image_size=32, widths=config.widths, seed=1)


def memory(method: str, step: int, quick: bool, device: str) -> dict[str, int]:
    """Peak memory of a step."""
    config, ghn, images = material(quick, device)
    meta_batch = batches(config).meta_batch(step)
    return device_peak_memory(device, synchronized(lambda: METHODS[method](config, ghn, meta_batch, *images), device))


def kernels(function: Callable[[], None]) -> dict[str, float]:
    """The number of kernels and copies that a function runs on the GPU, and their total time."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        synchronized(function, "cuda")()
    events = [event for event in profiler.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
    return {
        "kernels": sum(event.count for event in events),
        "busy_s": sum(event.self_device_time_total for event in events) / 1e6,
    }


def rate(processes: int, meta_batch: int, quick: bool, device: str) -> dict[str, Any]:
    """Architectures per second of whole training steps, on digits, which need no download."""
    config, *_ = material(quick)
    config = changed(config, images="digits", image_size=32, meta_batch=meta_batch, batch_size=4 if quick else 64)
    with tempfile.TemporaryDirectory() as folder:
        rows = train(config, Path(folder), processes, device, steps=_WARM + (1 if quick else _TIMED), workers=1)
    seconds = statistics.fmean(row["seconds"] for row in rows[_WARM:])
    return {"processes": processes, "architectures": meta_batch, "seconds": seconds, "rate": meta_batch / seconds}


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "training")
    parser.add_argument("--steps", type=int, help="meta-batches; 5 by default")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="cpu by default")
    parser.add_argument("--processes", type=int, nargs="+", help="numbers of processes; 1, 2, 4 … up to all cores")
    options = parser.parse_args(argv)
    run = Run("training", options)
    device = options.device
    config, ghn, images = material(options.quick, device)
    rows: list[dict[str, Any]] = []
    shared: list[dict[str, Any]] = []
    for step in range(options.steps or (1 if options.quick else 5)):
        meta_batch = batches(config).meta_batch(step)
        row: dict[str, Any] = {"step": step, "nodes": sum(part.num_nodes for part in meta_batch.parts)}
        for name, method in METHODS.items():
            repeats = options.repeats or (1 if options.quick else 3)
            call = functools.partial(method, config, ghn, meta_batch, *images)
            row[name] = measure(synchronized(call, device), repeats).median
            asked = {"method": name, "step": step, "quick": options.quick}
            row[f"{name}_peak"] = call_on_device("training:memory", device, **asked)["over_baseline"]
            if device == "cuda" and name == "ours":
                row |= kernels(call)
        rows.append(row)
        run.probe.sample()
        run.note(f"step {step}: {number(row['ours'])} s, {gigabytes(row['ours_peak'])} GB")
        run.save(*_results_and_reports(rows, shared, options, run.probe.median))
    cores = os.cpu_count() or 1
    processes = options.processes or ([1] if options.quick else [2**i for i in range(cores.bit_length())])
    # At least as many as in a published step, and two for each process.
    meta_batch = max(config.meta_batch, 2 * max(processes))
    for count in processes:
        shared.append(rate(count, meta_batch, options.quick, device))
        run.note(f"{count} processes: {number(shared[-1]['rate'])} architectures/s")
        run.save(*_results_and_reports(rows, shared, options, run.probe.median))
    run.finish(*_results_and_reports(rows, shared, options, run.probe.median))
    return 0


def _results_and_reports(
    rows: Sequence[dict[str, Any]], shared: list[dict[str, Any]], options: argparse.Namespace, probe: float
) -> tuple[Any, ...]:
    """What the JSON file holds, and the sections of the report; published figures are for a CPU."""
    seconds = statistics.fmean(row["ours"] for row in rows)
    peak = max(row["ours_peak"] for row in rows)
    results: dict[str, Any] = {"rows": rows, "mean_seconds": seconds, "peak": peak, "processes": shared}
    summary = f"A step takes {number(seconds)} s in the mean and {gigabytes(peak)} GB at most"
    if options.device != "cpu" or options.quick:  # a small step is not compared with the published one
        return results, _report(rows), f"{summary}.", _rate_report(shared)
    figures = FIGURES["training"]
    measured = {
        ("speedup", "step"): speedup(figures["seconds"], seconds, probe),
        ("smaller", "step"): {"raw": figures["peak_gb"] * 1e9 / peak},
    }
    for row in shared:
        if (row["processes"], row["architectures"]) == (figures["cores"], figures["architectures"]):
            measured["speedup", "training by 2 processes"] = speedup(figures["seconds"], row["seconds"], probe)
    goals = check_goals("training", measured)
    summary = f"{summary}; published {number(figures['seconds'])} s and {figures['peak_gb']} GB."
    return {**results, "goals": goals}, _report(rows), summary, goal_table(goals), _rate_report(shared)


def _report(rows: Sequence[dict[str, Any]]) -> str:
    header = ["meta-batch", "nodes", "s", "GB", "in one graph, s", "GB"]
    header += ["kernels", "GPU computes, s"] if "kernels" in rows[0] else []
    lines = []
    for row in rows:
        measured = [text for name in METHODS for text in (number(row[name]), gigabytes(row[f"{name}_peak"]))]
        measured += [f"{row['kernels']:,}", number(row["busy_s"])] if "kernels" in row else []
        lines.append([str(row["step"]), str(row["nodes"]), *measured])
    return table(header, lines)


def _rate_report(shared: Sequence[dict[str, Any]]) -> str:
    lines = [
        [str(row["processes"]), str(row["architectures"]), number(row["seconds"]), number(row["rate"]),
         number(row["rate"] / shared[0]["rate"])]
        for row in shared
    ]  # fmt: skip
    header = ["processes", "architectures in a step", "s", "architectures/s", "times the first"]
    return "## Whole training steps by several processes\n\n" + table(header, lines)


if __name__ == "__main__":
    sys.exit(main())
