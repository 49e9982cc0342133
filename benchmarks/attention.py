"""How fast is attention with biases, and how does it grow with graphs? ``python -m benchmarks.attention``

Eight graphs of 256 nodes, width 64, 8 heads; a batch of 128 graphs of the size of molecules; and one graph of 64 to
4,096 nodes, each in a new process. For comparison: a textbook implementation with 2d numbers for every pair of nodes,
on the whole batch or graph by graph; PyTorch Geometric's ``GPSConv``, which has no bias; and with ``--device cuda``
FlexAttention, which reads biases from their table.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GPSConv

from ghn_pyg.nn import Blocks, DistanceBias, GraphormerLayer, GraphTransformer, table_attention

from .harness import (
    Run,
    arguments,
    available_memory,
    call_on_device,
    device_peak_memory,
    measure,
    measure_in_turns,
    number,
    slope,
    synchronized,
    table,
)

WIDTH, HEADS = 64, 8
BATCHES = {"8 graphs of 256 nodes": [256] * 8, "128 graphs of 9 to 37 nodes": [9 + (7 * i) % 29 for i in range(128)]}
NODES = (64, 128, 256, 512, 1024, 2048, 4096)
FLEX = "bias and layer, flex"
BY_GRAPH = "textbook, by graph"
LAYERS, CONVS = "bias and 3 layers", "3 gpsconv"
METHODS = ("bias and layer", "layer", LAYERS, "textbook", BY_GRAPH, "gpsconv", CONVS)
ALONE = ("bias and layer", FLEX, "layer", "textbook", "gpsconv")
"""Methods that are measured on graphs of many sizes."""


def methods_on(device: str) -> tuple[str, ...]:
    """Methods for a device: FlexAttention has no gradients on a CPU."""
    return METHODS if device == "cpu" else (METHODS[0], FLEX, *METHODS[1:])


class Batch:
    """Node embeddings and random distances of a batch of graphs."""

    def __init__(self, sizes: Sequence[int], device: str) -> None:
        generator = torch.Generator().manual_seed(7)
        self.sizes = list(sizes)
        self.device = device
        self.x = torch.randn(sum(sizes), WIDTH, generator=generator).to(device).requires_grad_()
        self.vector = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(device)
        parts = [_distances(size, generator) for size in sizes]
        self.distance = torch.cat([part.flatten() for part in parts]).to(device)
        self.edge_index = torch.empty(2, 0, dtype=torch.long, device=device)


def _distances(nodes: int, generator: torch.Generator) -> Tensor:
    """Distances up to 50 as in an acyclic graph, where only one direction of each pair has a path."""
    drawn = torch.randint(0, 51, (nodes, nodes), generator=generator, dtype=torch.uint8)
    return drawn.triu(1)


class Textbook(nn.Module):
    """A literal implementation on a padded batch: an MLP on features of all pairs, then attention."""

    def __init__(self, bias: DistanceBias, layer: GraphormerLayer) -> None:
        super().__init__()
        self.bias = bias
        self.layer = layer

    def forward(self, x: Tensor, distance: Tensor, sizes: Sequence[int]) -> Tensor:
        parts = self.layer.norm1(x).split(list(sizes))
        squares = distance.split([size * size for size in sizes])
        rows = [square.view(len(part), len(part)).long() + 2 for part, square in zip(parts, squares, strict=True)]
        x = x + self.layer.out(self.attended(parts, rows))
        return x + self.layer.ff(self.layer.norm2(x))

    def attended(self, parts: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        device, sizes = parts[0].device, [len(part) for part in parts]
        size = max(sizes)
        x = torch.stack([F.pad(part, (0, 0, 0, size - len(part))) for part in parts])
        squares = torch.stack([F.pad(square, (0, size - len(square)) * 2) for square in rows])
        real = torch.arange(size, device=device) < torch.tensor(sizes, device=device)[:, None]
        return self.attend(x, squares, None if real.all() else ~real)[real]

    def attend(self, x: Tensor, rows: Tensor, padding: Tensor | None = None) -> Tensor:
        """Attention over nodes (G, n, d) with rows (G, n, n) of the table; padding is masked (G, n)."""
        features = torch.cat((self.bias.distance(rows), self.bias.distance(rows.mT)), dim=-1)
        bias = self.bias.mlp(features).permute(0, 3, 1, 2)
        if padding is not None:
            bias = bias.masked_fill(padding[:, None, None], -torch.inf)
        query, key, value = self.layer.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        scores = query @ key.mT / query.size(-1) ** 0.5 + bias
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


class TextbookByGraph(Textbook):
    """The same, one graph after another."""

    def attended(self, parts: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        return torch.cat([self.attend(part[None], square[None])[0] for part, square in zip(parts, rows, strict=True)])


def methods(batch: Batch) -> dict[str, tuple[Callable[[], Tensor], nn.Module]]:
    """The functions to measure, each with the module whose gradients are computed."""
    torch.manual_seed(3)
    bias, layer = DistanceBias(WIDTH, HEADS).to(batch.device), GraphormerLayer(WIDTH, HEADS).to(batch.device)
    convs = nn.ModuleList(GPSConv(WIDTH, None, HEADS) for _ in range(3)).to(batch.device)
    gps = convs[0]
    flex = GraphormerLayer(WIDTH, HEADS, attention=table_attention).to(batch.device)
    flex.load_state_dict(layer.state_dict())
    blocks = Blocks.of(batch.vector, len(batch.x))
    prepared = [part.detach() for part in bias(batch.distance, blocks).dense()]

    def by_formula(textbook: Textbook) -> tuple[Callable[[], Tensor], nn.Module]:
        return lambda: textbook(batch.x, batch.distance, batch.sizes), textbook

    def with_bias(layer: nn.Module) -> tuple[Callable[[], Tensor], nn.Module]:
        def run() -> Tensor:
            blocks = Blocks.of(batch.vector, len(batch.x))
            return layer(batch.x, blocks, bias(batch.distance, blocks))

        return run, nn.ModuleList([bias, layer])

    calls = {
        "bias and layer": with_bias(layer),
        FLEX: with_bias(flex),
        "layer": (lambda: layer(batch.x, blocks, prepared), layer),
        LAYERS: with_bias(GraphTransformer(WIDTH, 3, HEADS).to(batch.device)),
        "textbook": by_formula(Textbook(bias, layer)),
        BY_GRAPH: by_formula(TextbookByGraph(bias, layer)),
        "gpsconv": (lambda: gps(batch.x, batch.edge_index, batch.vector), gps),
        CONVS: (
            lambda: functools.reduce(lambda x, c: c(x, batch.edge_index, batch.vector), convs, batch.x),
            convs,
        ),
    }
    return {name: calls[name] for name in methods_on(batch.device)}


def backward(function: Callable[[], Tensor], module: nn.Module) -> Callable[[], None]:
    """A forward and a backward pass."""

    def run() -> None:
        module.zero_grad(set_to_none=True)
        function().sum().backward()

    return run


def agree(batch: Batch) -> float:
    """The largest difference from the textbook, relative to its largest value."""
    calls = methods(batch)
    with torch.no_grad():
        compared = ("textbook", BY_GRAPH, "bias and layer", FLEX)
        textbook, *ours = (calls[name][0]() for name in compared if name in calls)
    return max(((output - textbook).abs().max() / textbook.abs().max()).item() for output in ours)


def times(batch: Batch, repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of the forward pass, and of forward and backward pass, of each method."""
    calls = methods(batch)
    with torch.no_grad():
        once = {name: synchronized(function, batch.device) for name, (function, _) in calls.items()}
        forward = measure_in_turns(once, repeats, budget=6.0)
    twice = {name: synchronized(backward(*pair), batch.device) for name, pair in calls.items()}
    both = measure_in_turns(twice, repeats, budget=6.0)
    return {
        name: {"forward_s": median(forward[name]), "both_s": median(both[name]), "all": [forward[name], both[name]]}
        for name in calls
    }


def grow(nodes: int, method: str, repeats: int, device: str) -> dict[str, Any]:
    """Time and peak memory of one graph forward and backward."""
    backward(*methods(Batch([16], device))[method])()  # loads libraries
    both = synchronized(backward(*methods(Batch([nodes], device))[method]), device)
    peak = device_peak_memory(device, both)["over_baseline"]
    return {"seconds": measure(both, repeats, budget=4.0).median, "peak_bytes": peak}


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "attention")
    parser.add_argument("--nodes", nargs="+", type=int, help="sizes of the single graph; 64 to 4,096 by default")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="cpu by default")
    options = parser.parse_args(argv)
    sizes = options.nodes or ((16, 32) if options.quick else NODES)
    repeats = options.repeats or (1 if options.quick else 15)
    batches = {"2 graphs of 16 nodes": [16, 16]} if options.quick else BATCHES
    growing = [method for method in methods_on(options.device) if method in ALONE]
    run = Run("attention", options)
    results: dict[str, Any] = {"batches": {}, "growth": {}}
    for name, graphs in batches.items():
        batch = Batch(graphs, options.device)
        results["batches"][name] = {"difference": agree(batch), "methods": times(batch, repeats)}
        run.probe.sample()
        run.note(name)
        run.save(*_result_and_reports(results, growing))
    for nodes in sizes:
        row = {}
        for method in growing:
            if method == "textbook" and nodes**2 * WIDTH * 60 > available_memory(options.device):
                continue
            asked = {"nodes": nodes, "method": method, "repeats": min(repeats, 5)}
            row[method] = call_on_device("attention:grow", options.device, **asked)
        results["growth"][str(nodes)] = row
        run.note(f"{nodes} nodes")
        run.save(*_result_and_reports(results, growing))
    run.finish(*_result_and_reports(results, growing))
    return 0 if all(batch["difference"] < 1e-4 for batch in results["batches"].values()) else 1


def _result_and_reports(results: dict[str, Any], growing: Sequence[str]) -> list[Any]:
    """What the JSON file holds, and the sections of the report."""
    reports = [_batch_report(*item) for item in results["batches"].items()]
    return [results, *reports, _growth_report(results["growth"], growing)]


def _batch_report(name: str, result: dict[str, Any]) -> str:
    rows, textbook = [], result["methods"]["textbook"]
    for method, row in result["methods"].items():
        line = [method]
        for key in ("forward_s", "both_s"):
            line += [number(row[key] * 1e3), number(textbook[key] / row[key])]
        rows.append(line)
    head = ["", "forward ms", "textbook / this", "forward + backward ms", "textbook / this"]
    return f"## {name}\n\nOurs and the textbooks differ by {result['difference']:.0e}.\n\n" + table(head, rows)


def _growth_report(growth: dict[str, Any], measured: Sequence[str]) -> str:
    rows = []
    for nodes, row in growth.items():
        line = [nodes]
        for method in measured:
            cell = row.get(method)
            line += [number(cell and cell["seconds"] * 1e3), number(cell and cell["peak_bytes"] / 1e6)]
        rows.append(line)
    for key, title in (("seconds", "exponent of time"), ("peak_bytes", "exponent of memory")):
        line = [f"{title} from 256 nodes"]
        for method in measured:
            chosen = [(int(n), row[method][key]) for n, row in growth.items() if method in row and int(n) >= 256]
            value = number(slope(*zip(*chosen, strict=True))) if len(chosen) > 1 else "–"
            line += [value, ""] if key == "seconds" else ["", value]
        rows.append(line)
    head = ["nodes", *(f"{method} {unit}" for method in measured for unit in ("ms", "MB"))]
    return "## One graph, forward and backward\n\n" + table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
