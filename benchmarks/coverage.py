"""Which networks become graphs, and how much of them is predicted? ``python -m benchmarks.coverage``

The smallest network of every family of timm, torchvision's networks for classification, detection, segmentation, video
and optical flow, and small models of Transformers. Each graph must be acyclic with every node reachable from the input,
every parameter must be predicted or kept for a known reason, and a forward pass after prediction must be finite.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import networkx as nx
import torch
from torch import Tensor, nn

from ghn_pyg import GHN, GHNConfig, batch_statistics, coverage, from_module
from ghn_pyg.graph.arch_data import ArchData
from ghn_pyg.tracing.default_inputs import default_inputs
from ghn_pyg.utils.nested_tensors import map_tensors, tensors_in
from ghn_pyg.zoo.build import build_network, network_names

from .harness import Run, arguments, table
from .transformers_models import MODELS

FAMILIES: Final = Path(__file__).with_name("timm_families.json")
"""The network with the fewest parameters of each family; ``--find`` updates the file."""

LEAST: Final = 0.99
_FLOW: Final = "raft_"


def smallest() -> dict[str, str]:
    """The smallest network of every family of the installed timm."""
    import timm

    names = {}
    for family in timm.list_modules():
        sizes = {}
        for name in timm.list_models(module=family):
            with contextlib.suppress(NotImplementedError), torch.device("meta"):  # a constructor that needs values
                sizes[name] = sum(parameter.numel() for parameter in timm.create_model(name).parameters())
        names[family] = min(sizes, key=lambda name: (sizes[name], name))
    return names


def example_inputs(name: str, model: nn.Module) -> Any:
    """Inputs of networks for image pairs and videos; ``None`` for the default inputs."""
    if name.startswith(_FLOW):
        return (torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, 128, 128))
    if "/video/" in f"/{type(model).__module__.replace('.', '/')}/":
        return torch.zeros(1, 3, 16, 224, 224)
    return None


def sound(graph: ArchData) -> bool:
    """Whether the graph is acyclic, and every node is reachable from the input or a positional encoding."""
    edges = graph.to_networkx()
    roots = [node for node, kind in enumerate(graph.node_types) if kind in ("input", "pos_enc")]
    reached = set(roots).union(*(nx.descendants(edges, root) for root in roots))
    return nx.is_directed_acyclic_graph(edges) and len(reached) == graph.num_nodes


def finite(model: nn.Module, given: Any) -> bool:
    """Whether outputs for random inputs are finite, with batch statistics in batch norms."""
    args, kwargs = default_inputs(model) if given is None else (given if isinstance(given, tuple) else (given,), {})
    generator = torch.Generator().manual_seed(0)

    def real(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.expand(2, *tensor.shape[1:]) if tensor.dim() else tensor
        return torch.rand((2, *tensor.shape[1:]), generator=generator)

    with torch.no_grad(), batch_statistics(model):
        outputs = model(*map_tensors(real, args), **map_tensors(real, kwargs))
    outputs = dict(outputs) if hasattr(outputs, "items") else outputs
    return all(bool(t.isfinite().all()) for t in tensors_in([outputs]) if t.is_floating_point())


def check(name: str, model: nn.Module, given: Any, ghn: GHN) -> dict[str, Any]:
    """Coverage of a network, and the checks that it fails."""
    model.eval()
    began = time.perf_counter()
    graph = from_module(model, given)
    seconds = time.perf_counter() - began
    report = coverage(graph)
    named = {key for key, _ in model.named_parameters(remove_duplicate=False)}
    ghn.initialize(model, graph, seed=0)
    checks = {
        "the graph is not sound": sound(graph),
        "parameters without an outcome": {row.name for row in report.rows} == named,
        "too little is predicted": report.layer_share >= LEAST,
        "a weight matrix is kept": not report.kept_weights,
        "outputs are not finite": finite(model, given),
    }
    wrong = [fault for fault, passed in checks.items() if not passed]
    return {
        "name": name, "seconds": seconds, "nodes": graph.num_nodes, "elements": report.elements, "wrong": wrong,
        "share": report.share, "layer_share": report.layer_share, "kept": sorted({str(row.why) for row in report.kept}),
    }  # fmt: skip


def networks(library: str, quick: bool) -> Iterable[tuple[str, Callable[[], tuple[nn.Module, Any]]]]:
    """Names of networks, each with a function that returns the network and its inputs."""
    if library == "transformers":
        for name, (make, given) in MODELS.items():
            yield name, lambda make=make, given=given: (make(), given)  # type: ignore[misc]
        return
    names = network_names("torchvision") if library == "torchvision" else _of_timm()
    for name in names[:2] if quick else names:
        if "quantized" not in name:

            def make(name: str = name) -> tuple[nn.Module, Any]:
                model = build_network(name).network
                return model, example_inputs(name, model)

            yield name, make


def _of_timm() -> list[str]:
    return [f"timm/{name}" for name in json.loads(FAMILIES.read_text(encoding="utf-8")).values()]


def measured(library: str, ghn: GHN, run: Run, quick: bool) -> list[dict[str, Any]]:
    rows = []
    for name, make in networks(library, quick):
        torch.manual_seed(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rows.append(check(name, *make(), ghn))
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            rows.append({"name": name, "wrong": [f"{type(error).__name__}: {str(error)[:300]}"]})
        run.note(f"{name}: {rows[-1].get('layer_share', 0):.2%} {', '.join(rows[-1]['wrong'])}")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "coverage")
    libraries = ("timm", "torchvision", "transformers")
    parser.add_argument("--libraries", nargs="+", choices=libraries, default=list(libraries), help="all by default")
    parser.add_argument("--find", action="store_true", help=f"update the smallest networks of timm in {FAMILIES.name}")
    options = parser.parse_args(argv)
    if options.find:
        FAMILIES.write_text(json.dumps(smallest(), indent=1) + "\n", encoding="utf-8")
    run = Run("coverage", options)
    torch.manual_seed(0)
    ghn = GHN(GHNConfig.preset("ghn3tm8")).eval()
    rows = {library: measured(library, ghn, run, options.quick) for library in options.libraries}
    parts = []
    for library, library_rows in rows.items():
        wrong = sum(bool(row["wrong"]) for row in library_rows)
        lines = [
            [row["name"], str(row.get("nodes", "–")), *(_percent(row.get(key)) for key in ("share", "layer_share")),
             f"{row['seconds']:.2f}" if "seconds" in row else "–", "; ".join(row["wrong"]) or "–"]
            for row in library_rows
        ]  # fmt: skip
        head = ["network", "nodes", "of all elements", "of layers", "graph, s", "wrong"]
        parts.append(f"## {library}: {len(library_rows)} networks, {wrong} with a fault\n\n{table(head, lines)}")
    run.finish({"rows": rows}, *parts)
    return 1 if any(row["wrong"] for library_rows in rows.values() for row in library_rows) else 0


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


if __name__ == "__main__":
    sys.exit(main())
