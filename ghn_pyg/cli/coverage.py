"""``ghn-pyg coverage``: lists which parameters of networks are predicted, and why others are not."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .files import save_csv
from .options import argument, flag, option
from .terminal import fail, make_table, print_failures, print_rows, progress_bar, status, user_errors
from .trace_network import InputShape, build, check_networks, describe, make_inputs

_logger = logging.getLogger(__name__)
_FIGURES = ("nodes", "tensors", "tensors_predicted", "elements", "elements_predicted", "share", "layer_share",
            "kept_weights")  # fmt: skip


def coverage(
    sources: Annotated[list[str], argument("SOURCE", "Networks as for `ghn-pyg predict`, or patterns: 'timm/vit_*'.")],
    full: Annotated[bool, flag("--full", "List each parameter of a single network.")] = False,
    csv: Annotated[Path | None, option("FILE.csv", "Save the table, of parameters or of several networks.")] = None,
    inputs: options.Inputs = None,
    strict: options.Strict = False,
    verify: Annotated[bool, flag("--verify", "Run each network once, and compare the run with its graph.")] = False,
) -> None:
    """List which parameters of networks are predicted, and why others keep their values."""
    options.check_file(csv, [".csv"])
    input_shapes = check_networks(sources, inputs)
    with status("Listing networks"):
        from ..zoo.build import expand_patterns

        with user_errors(ValueError, ImportError):
            names = expand_patterns(sources)
    if len(names) == 1:
        failures = _cover_one(names[0], input_shapes, full, csv, strict, verify)
    else:
        failures = _cover_several(names, input_shapes, csv, strict, verify)
    print_failures(failures)
    if failures:
        raise typer.Exit(1)


def _cover_one(
    name: str, inputs: Sequence[InputShape], full: bool, csv: Path | None, strict: bool, verify: bool
) -> dict[str, str]:
    """Prints the parameters of a network, and returns its failure under ``strict`` or ``verify``."""
    network, example_inputs = build(name, inputs)
    with status(f"Tracing {name}"):
        from ..tracing.parameter_coverage import CoverageError
        from ..tracing.parameter_coverage import coverage as measure
        from ..tracing.trace import TracingError

        try:
            report = measure(network, example_inputs)
        except (ValueError, TypeError, TracingError) as error:
            fail(describe(error))
    lines = report.totals()
    failure = ""
    if verify:
        with status(f"Running {name}"):
            outcome, failure = _verified(network, example_inputs)
        lines.append(("verified", outcome))
    if csv is not None:
        save_csv(csv, report.to_rows())
        lines.append(("saved", str(csv)))
    print_rows(name, lines, report.table(full))
    try:
        if strict:
            report.check()
    except CoverageError as error:
        return {name: describe(error)}
    return {name: failure} if failure else {}


def _verified(network: Any, example_inputs: Any) -> tuple[str, str]:
    """What a real run says of a network's graph, and what fails."""
    from ..tracing.verification import verify

    try:
        result = verify(network, example_inputs)
    except Exception as error:  # noqa: BLE001  # whatever the network raises
        return "no", f"it does not run: {type(error).__name__}: {describe(error)}"
    *differences, outcome = str(result).splitlines()[: len(result.differences) + 1]
    return outcome, " ".join(differences)


def _cover_several(
    names: Sequence[str], inputs: Sequence[InputShape], csv: Path | None, strict: bool, verify: bool
) -> dict[str, str]:
    """Prints one row for each network, and returns the failures."""
    from ..tracing.parameter_coverage import percent

    with progress_bar(len(names), "Tracing") as advance:
        rows = []
        for name in names:
            rows.append(_measure(name, inputs, strict, verify))
            advance()
    table = make_table("network", "nodes", "tensors", "kept", "elements", "predicted", "of layers", "kept weights")
    traced = [row for row in rows if "nodes" in row]
    for row in traced:
        counts = (row["nodes"], row["tensors"], row["tensors"] - row["tensors_predicted"], row["elements"])
        shares = map(percent, (row["share"], row["layer_share"]))
        table.add_row(row["network"], *(f"{count:,}" for count in counts), *shares, f"{row['kept_weights']:,}")
    failures = {row["network"]: row["failure"] for row in rows if row["failure"]}
    lines = [("networks", f"{len(rows) - len(failures):,} of {len(rows):,} without failure")]
    if elements := sum(row["elements"] for row in traced):
        share = sum(row["elements_predicted"] for row in traced) / elements
        lines.append(("elements", f"{percent(share)} of {elements:,} predicted"))
    if csv is not None:
        save_csv(csv, rows, ["network", *_FIGURES, "seconds", "failure"])
        lines.append(("saved", str(csv)))
    print_rows("Coverage", lines, table)
    return failures


def _measure(name: str, inputs: Sequence[InputShape], strict: bool, verify: bool) -> dict[str, Any]:
    from ..tracing.parameter_coverage import coverage as measure
    from ..zoo.build import skeleton

    start = time.perf_counter()
    row: dict[str, Any] = {"network": name}
    failure = ""
    try:
        network, example_inputs = skeleton(name)
        given = make_inputs(inputs) if inputs else example_inputs
        report = measure(network, given)
        figures = report.to_dict()
        row |= {name: figures[name] for name in _FIGURES}
        if strict:
            report.check()
        if verify:
            _, failure = _verified(network, given)
    except Exception as error:  # any failure is a result, listed with the others
        _logger.debug("%s failed", name, exc_info=True)
        failure = " ".join(f"{type(error).__name__}: {describe(error)}".split())
    return {**row, "seconds": round(time.perf_counter() - start, 3), "failure": failure}
