"""How long does a step of meta-training take, and how much memory? ``python -m benchmarks.training``

GHN-3-T, eight training architectures and 64 images of 32×32 pixels, as published. "In one graph" is the same step with
one backward pass through all networks and the GHN, which keeps the activations of all networks at once.
"""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from ghn_pyg import GHN
from ghn_pyg.deepnets.dataset import MetaBatch, MetaBatches
from ghn_pyg.deepnets.network import Network
from ghn_pyg.training.config import TrainConfig
from ghn_pyg.training.recipes import load_config
from ghn_pyg.training.step import meta_gradient, meta_loss

from .harness import Run, arguments, fresh, gigabytes, measure, number, peak_memory, table
from .published import FIGURES, goal_table, judged, speedup

RECIPE: Final = "ghn3-t-cifar10"
TINY: Final = ["ghn.hidden_channels=16", "ghn.max_channels=16", "ghn.layers=1", "meta_batch=2", "batch_size=4",
               "widths={widths: [8]}"]  # fmt: skip


def material(quick: bool) -> tuple[TrainConfig, GHN, tuple[Tensor, Tensor]]:
    """The recipe, an untrained GHN and images of noise."""
    config = load_config(RECIPE, TINY if quick else ())
    torch.manual_seed(0)
    images = torch.randn(config.batch_size, 3, 32, 32), torch.randint(10, (config.batch_size,))
    return config, GHN(config.ghn).train(), images


def ours(config: TrainConfig, ghn: GHN, meta_batch: MetaBatch, images: Tensor, labels: Tensor) -> None:
    """A step's gradient as training computes it."""
    ghn.zero_grad()
    meta_gradient(ghn, meta_batch, images, labels, architectures=config.meta_batch, penalty=config.penalty)


def one_graph(config: TrainConfig, ghn: GHN, meta_batch: MetaBatch, images: Tensor, labels: Tensor) -> None:
    """The same gradient by one backward pass."""
    ghn.zero_grad()
    losses = []
    for part in meta_batch.parts:
        for prediction, architecture in zip(ghn.predict(part, differentiable=True), part.architecture, strict=True):
            network = Network(architecture, 10, 32).train()
            logits = torch.func.functional_call(network, dict(prediction), (images,))
            losses.append(meta_loss(logits, labels, [*prediction.values()], config.penalty))
    torch.stack(losses).mean().backward()


METHODS: Final[dict[str, Callable[..., None]]] = {"ours": ours, "one_graph": one_graph}


def batches(config: TrainConfig) -> MetaBatches:
    return MetaBatches(config.meta_batch, num_classes=10, image_size=32, widths=config.widths, seed=1)


def memory(method: str, step: int, quick: bool) -> dict[str, int]:
    """Peak memory of a step, for a process of its own."""
    config, ghn, images = material(quick)
    meta_batch = batches(config).meta_batch(step)
    return peak_memory(lambda: METHODS[method](config, ghn, meta_batch, *images))


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "training")
    parser.add_argument("--steps", type=int, help="meta-batches; 5 by default")
    options = parser.parse_args(argv)
    run = Run("training", options)
    config, ghn, images = material(options.quick)
    rows: list[dict[str, Any]] = []
    for step in range(options.steps or (1 if options.quick else 5)):
        meta_batch = batches(config).meta_batch(step)
        row: dict[str, Any] = {"step": step, "nodes": sum(part.num_nodes for part in meta_batch.parts)}
        for name, method in METHODS.items():
            repeats = options.repeats or (1 if options.quick else 3)
            row[name] = measure(functools.partial(method, config, ghn, meta_batch, *images), repeats).median
            row[f"{name}_peak"] = fresh("training:memory", method=name, step=step, quick=options.quick)["over_baseline"]
        rows.append(row)
        run.probe.sample()
        run.note(f"step {step}: {number(row['ours'])} s, {gigabytes(row['ours_peak'])} GB")
    seconds = statistics.fmean(row["ours"] for row in rows)
    peak = max(row["ours_peak"] for row in rows)
    figures = FIGURES["training"]
    faster = speedup(figures["seconds"], seconds, run.probe.median)
    smaller = {"raw": figures["peak_gb"] * 1e9 / peak}
    measured = {} if options.quick else {("speedup", "step"): faster, ("smaller", "step"): smaller}
    goals = judged("training", measured)
    run.finish(
        {"rows": rows, "mean_seconds": seconds, "peak": peak, "goals": goals},
        _report(rows),
        f"A step takes {number(seconds)} s in the mean and {gigabytes(peak)} GB at most; published "
        f"{number(figures['seconds'])} s and {figures['peak_gb']} GB.",
        goal_table(goals),
    )
    return 0


def _report(rows: Sequence[dict[str, Any]]) -> str:
    header = ["meta-batch", "nodes", "s", "GB", "in one graph, s", "GB"]
    lines = [
        [
            str(row["step"]),
            str(row["nodes"]),
            *(text for name in METHODS for text in (number(row[name]), gigabytes(row[f"{name}_peak"]))),
        ]
        for row in rows
    ]
    return table(header, lines)


if __name__ == "__main__":
    sys.exit(main())
