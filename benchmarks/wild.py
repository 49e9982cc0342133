"""Which networks of other libraries become right graphs? ``python -m benchmarks.wild``

Networks of the libraries in the dependency group ``wild``, small and with random weights. A network whose forward pass
does not run on its inputs is not valid, and does not count. For the others, ``verify`` compares the graph with a real
run, and parameters that get a gradient must be predicted, or kept on purpose.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any, Final

import torch
from torch import Tensor, nn

from ghn_pyg import coverage, from_module, verify
from ghn_pyg.graph.arch_data import ArchData
from ghn_pyg.utils.nested_tensors import map_tensors, tensors_in

from .harness import Run, arguments, table
from .wild_networks import LIBRARIES
from .wild_networks.common import Made

SECONDS: Final = 120
"""Longest time that a network may take for its forward pass, and for the graph and its comparison."""

LEAST: Final = 0.98
"""The share of valid networks that must be right."""

QUICK: Final = 2


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises a TimeoutError after so many seconds."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"it took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # again and again, as the network may catch the error
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def outputs(model: nn.Module, given: Any) -> list[Tensor]:
    """Tensors that the forward pass returns in evaluation mode."""
    given = map_tensors(torch.clone, given)
    result = model(**given) if type(given) is dict else model(*given) if type(given) is tuple else model(given)
    return list(tensors_in([result, getattr(result, "__dict__", {})]))


def unused(model: nn.Module, given: Any) -> set[str]:
    """Parameters that no output depends on, by their gradients."""
    trained = {name: one for name, one in model.named_parameters() if one.is_floating_point() or one.is_complex()}
    for parameter in trained.values():
        parameter.grad = None
        parameter.requires_grad_()
    torch.manual_seed(0)
    total = sum(tensor.abs().sum() for tensor in outputs(model, given) if tensor.requires_grad)
    if isinstance(total, Tensor):
        total.backward()
    return {name for name, parameter in trained.items() if parameter.grad is None}


def check(model: nn.Module, given: Any, run: Run) -> dict[str, Any]:
    """What a valid network's graph has, and what is wrong with it."""
    began = time.perf_counter()
    graph = from_module(model, given)
    row: dict[str, Any] = {"seconds": time.perf_counter() - began, "nodes": graph.num_nodes}
    verified = verify(model, given, graph)
    wrong = [str(difference) for difference in verified.differences]
    return row | {"verified": bool(verified), "wrong": wrong} | kept_in(graph, model, given, run)


def kept_in(graph: ArchData, model: nn.Module, given: Any, run: Run) -> dict[str, Any]:
    """The share of layers that is predicted, and the reasons for parameters that are kept though they are in use."""
    report = coverage(graph)
    kept = {row.name: row for row in report.kept if row.in_layer}
    if kept:
        try:
            without = unused(model, given)
        except Exception as error:  # noqa: BLE001  # a network may have no backward pass
            without = set()
            run.note(f"no gradients: {summary(error)}")
        kept = {name: row for name, row in kept.items() if name not in without}
    used = sum(row.elements for row in kept.values())
    predicted = sum(row.elements for row in report.predicted)
    return {
        "layer_share": predicted / (predicted + used) if used else 1.0,
        "kept": [f"{count} × {why}" for why, count in Counter(str(row.why) for row in kept.values()).most_common()],
        "kept_names": list(kept)[:5],
    }  # fmt: skip


def measured(name: str, make: Callable[[], Made], run: Run) -> dict[str, Any]:
    """The row of a network; ``invalid`` says why it does not count."""
    torch.manual_seed(0)
    try:
        with limited(SECONDS):
            model, given = make()
            with torch.no_grad():
                with contextlib.suppress(NotImplementedError):  # an exported program has one mode
                    model.eval()
                outputs(model, given)
    except Exception as error:  # noqa: BLE001  # whatever the library raises
        return {"name": name, "invalid": summary(error)}
    try:
        with limited(SECONDS):
            return {"name": name, **check(model, given, run)}
    except Exception as error:  # noqa: BLE001  # this is what the scan looks for
        return {"name": name, "error": summary(error)}


def summary(error: Exception) -> str:
    """Kind and first line of an error and of its cause."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0][:250]}"


def failed(row: dict[str, Any]) -> bool:
    return "error" in row or bool(row.get("wrong")) or row.get("layer_share", 1.0) < 1.0


def scanned(library: str, run: Run, only: Sequence[str], quick: bool) -> dict[str, Any]:
    """The rows of a library, or why it is left out."""
    try:
        networks = LIBRARIES[library]()
    except ImportError as error:
        run.note(f"{library} is left out: {error}")
        return {"left_out": str(error), "rows": []}
    names = [name for name in networks if not only or any(part in name for part in only)]
    rows = []
    for name in names[:QUICK] if quick else names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(measured(name, networks[name], run))
        run.note(f"{library}/{name}: {outcome(rows[-1])}")
    return {"rows": rows}


def outcome(row: dict[str, Any]) -> str:
    """A row as one line."""
    if "invalid" in row:
        return f"invalid: {row['invalid']}"
    if "error" in row:
        return f"not traced: {row['error']}"
    more = f" (and {len(row['wrong']) - 1} more)" if len(row["wrong"]) > 1 else ""
    parts = [f"differs: {row['wrong'][0]}{more}"] if row["wrong"] else []
    if row["kept"]:
        parts.append(f"layers {row['layer_share']:.2%}: {'; '.join(row['kept'])} ({', '.join(row['kept_names'])})")
    return "; ".join(parts) or "right"


def figures(library: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """The line of a library in the table."""
    valid = [row for row in rows if "invalid" not in row]
    traced = [row for row in valid if "error" not in row]
    right = sum(not failed(row) for row in valid)
    whole = sum(row["layer_share"] == 1.0 for row in traced)
    numbers = (len(rows), len(valid), len(traced), sum(row["verified"] for row in traced), whole, right)
    return [library, *map(str, numbers), f"{right / len(valid):.1%}" if valid else "–"]


def report(results: dict[str, Any]) -> list[str]:
    """Sections of the report."""
    scans = {library: result["rows"] for library, result in results.items() if result["rows"]}
    every = [row for rows in scans.values() for row in rows]
    head = ["library", "networks", "valid", "traced", "verified", "all layers predicted", "right", "of valid ones"]
    lines = [*(figures(library, rows) for library, rows in scans.items()), figures("all", every)]
    parts = [table(head, lines)]
    for library, rows in scans.items():
        if wrong := [row for row in rows if failed(row)]:
            parts.append(f"## {library}\n\n" + "\n".join(f"- {row['name']}: {outcome(row)}" for row in wrong))
    if missing := [f"{library} ({result['left_out']})" for library, result in results.items() if "left_out" in result]:
        parts.append(f"Left out: {', '.join(missing)}.")
    return parts


def versions(libraries: Sequence[str]) -> dict[str, str]:
    found = {}
    for library in libraries:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library.replace("open_clip", "open_clip_torch"))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "wild")
    parser.add_argument(
        "--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES), help="all by default"
    )
    parser.add_argument("--only", nargs="+", default=[], help="only networks with one of these words in their name")
    options = parser.parse_args(argv)
    run = Run("wild", options)
    results: dict[str, Any] = {}
    for library in options.libraries:
        results[library] = scanned(library, run, options.only, options.quick)
        run.save({"libraries": results}, *report(results))
    run.finish({"libraries": results, "installed": versions(options.libraries)}, *report(results))
    valid = [row for result in results.values() for row in result["rows"] if "invalid" not in row]
    return 1 if sum(not failed(row) for row in valid) < LEAST * len(valid) else 0


if __name__ == "__main__":
    sys.exit(main())
