"""Do sampled networks run? ``python -m benchmarks.soundness``

Networks of each split of DeepNets-1M run forward and backward on random images. Outputs and gradients must be finite,
the graph must equal the traced one, and every parameter that the output depends on must be predicted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ghn_pyg import ArchData, from_module
from ghn_pyg.families.deepnets.architecture_sampling import SPLIT_SIZES
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.families.deepnets.network import Network

from .harness import Run, arguments, table

CLASSES = 10


def faults(graph: ArchData, image_size: int, seed: int) -> list[str]:
    """The checks that a network and its graph fail."""
    torch.manual_seed(seed)
    network = Network(graph.architecture, CLASSES, image_size)
    logits = network(torch.randn(2, 3, image_size, image_size))
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    infinite = [name for name, p in network.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    predicted = {name for names in graph.param_names for name in names}
    checks = {
        "the outputs are not finite": bool(logits.isfinite().all()),
        "gradients are not finite": not infinite,
        "a parameter in use is not predicted": without == set(graph.kept),
        "parameters are missing": predicted | set(graph.kept) == {name for name, _ in network.named_parameters()},
        "the traced graph differs": same_graph(graph, from_module(network, torch.empty(1, 3, image_size, image_size))),
    }
    return [fault for fault, passed in checks.items() if not passed]


def same_graph(graph: ArchData, traced: ArchData) -> bool:
    tensors = ("node_type", "node_shape", "edge_index", "distance", "classifier")
    return (
        all(torch.equal(graph[name], traced[name]) for name in tensors)
        and graph.node_names == traced.node_names
        and graph.params == traced.params
        and graph.kept == traced.kept
    )


def check(split: str, count: int, image_size: int, width: int, run: Run) -> dict[str, Any]:
    """Checks the first networks of a split; for more than its size, also those of further seeds."""
    wrong: dict[str, list[str]] = {}
    kept = 0
    for position in range(count):
        seed, index = divmod(position, SPLIT_SIZES[split])
        graph = DeepNets(split, num_classes=CLASSES, image_size=image_size, width=width, seed=seed)[index]
        kept += bool(graph.kept)
        if here := faults(graph, image_size, position):
            wrong[f"seed {seed}, position {index}"] = here
            run.note(f"{split}, seed {seed}, position {index}: {', '.join(here)}")
    run.note(f"{split}: {count} networks, {len(wrong)} wrong")
    return {"split": split, "networks": count, "with_unused_parts": kept, "wrong": wrong}


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "soundness")
    parser.add_argument("--count", type=int, default=1000, help="networks of each split")
    parser.add_argument(
        "--splits", nargs="+", choices=list(SPLIT_SIZES), default=list(SPLIT_SIZES), help="splits; all by default"
    )
    parser.add_argument("--image-size", type=int, default=32, help="height and width of the images in pixels")
    parser.add_argument("--width", type=int, default=32, help="channels of the first cells")
    options = parser.parse_args(argv)
    count = 2 if options.quick else options.count
    run = Run("soundness", options)
    rows = [check(split, count, options.image_size, options.width, run) for split in options.splits]
    lines = [[row["split"], *(str(row[key]) for key in ("networks", "with_unused_parts")), str(len(row["wrong"]))]
             for row in rows]  # fmt: skip
    run.finish({"rows": rows}, table(["split", "networks", "with parts that are not in use", "wrong"], lines))
    return 1 if any(row["wrong"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
