"""The command that says which parameters of networks are predicted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import check_output, make_console, make_table, print_rows, status, user_errors
from .eval import bar
from .network_arguments import Inputs, Strict, build, check_sources

if TYPE_CHECKING:
    from ..tracing.parameter_coverage import Coverage
    from ..zoo.names import InputSpec

_logger = logging.getLogger(__name__)


def coverage(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Networks, named as for `ghn-pyg predict`, or patterns of names such as 'timm/vit_*'.",
        ),
    ],
    full: Annotated[bool, typer.Option("--full", help="List each parameter of a single network.")] = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="Where to save the table: each parameter of a single network, or each network."
        ),
    ] = None,
    inputs: Inputs = None,
    strict: Strict = False,
) -> None:
    """Says which parameters of networks are predicted, and why others keep their values."""
    if csv is not None:
        check_output(csv, [".csv"], "a table")
    specs = check_sources(sources, inputs)
    with status("Looking"):
        from ..zoo.build import expand

        with user_errors(ValueError, ImportError):
            names = expand(sources)
    fine = _one(names[0], specs, full, csv, strict) if len(names) == 1 else _several(names, specs, csv, strict)
    if not fine:
        raise typer.Exit(1)


def _one(name: str, inputs: Sequence[InputSpec], full: bool, csv: Path | None, strict: bool) -> bool:
    """The parameters of a network; returns whether it is as it should be."""
    network, example_inputs = build(name, inputs)
    with status(f"Following {name}"):
        from ..tracing.parameter_coverage import CoverageError
        from ..tracing.parameter_coverage import coverage as measure
        from ..tracing.trace import TracingError

        with user_errors(ValueError, TypeError, TracingError):
            found = measure(network, example_inputs)
    lines = found.totals()
    if csv is not None:
        _save(csv, found.to_rows())
        lines.append(("saved", str(csv)))
    print_rows(name, lines, found.table(full))
    if strict:
        try:
            found.check()
        except CoverageError as error:
            _show_failure(name, str(error))
            return False
    return True


def _several(names: Sequence[str], inputs: Sequence[InputSpec], csv: Path | None, strict: bool) -> bool:
    """One line for each network; returns whether all are as they should be."""
    from ..tracing.parameter_coverage import Coverage, percent

    rows = []
    with bar(len(names), "Following") as note:
        for name in names:
            rows.append(_row(name, inputs, strict))
            note(rows[-1])
    table = make_table("network", "nodes", "tensors", "kept", "elements", "predicted", "of layers", "kept weights")
    figures = [row for row in rows if "nodes" in row]
    for row in figures:
        counts = (row["nodes"], row["tensors"], row["tensors"] - row["tensors_predicted"], row["elements"])
        shares = map(percent, (row["share"], row["layer_share"]))
        table.add_row(row["network"], *(f"{count:,}" for count in counts), *shares, f"{row['kept_weights']:,}")
    failed = {row["network"]: row["failure"] for row in rows if row["failure"]}
    lines = [("networks", f"{len(rows) - len(failed):,} of {len(rows):,} without failure")]
    if elements := sum(row["elements"] for row in figures):
        share = sum(row["elements_predicted"] for row in figures) / elements
        lines.append(("elements", f"{percent(share)} of {elements:,} predicted"))
    if csv is not None:
        _save(csv, rows, ["network", *Coverage((), 0).figures(), "seconds", "failure"])
        lines.append(("saved", str(csv)))
    print_rows("Coverage", lines, table)
    for name, reason in failed.items():
        _show_failure(name, reason)
    return not failed


def _row(name: str, inputs: Sequence[InputSpec], strict: bool) -> dict[str, Any]:
    """The figures of a network, or what went wrong."""
    from ..tracing.parameter_coverage import coverage as measure
    from ..zoo.build import skeleton
    from ..zoo.names import make_inputs

    began = time.perf_counter()
    row: dict[str, Any] = {"network": name}
    failure = ""
    try:
        network, given = skeleton(name)
        found: Coverage = measure(network, make_inputs(inputs) if inputs else given)
        row |= found.figures()
        if strict:
            found.check()
    except Exception as error:  # whatever it is, it stands in the table
        _logger.debug("%s failed", name, exc_info=True)
        failure = " ".join(f"{type(error).__name__}: {error}".split())
    return {**row, "seconds": round(time.perf_counter() - began, 3), "failure": failure}


def _show_failure(name: str, reason: str) -> None:
    make_console().print(f"failed: {name}: {reason}", style="red", soft_wrap=True, markup=False)


def _save(path: Path, rows: Sequence[Mapping[str, Any]], fields: Iterable[str] = ()) -> None:
    import csv

    from ..utils.atomic_files import replacing

    with (
        user_errors(OSError),
        replacing(path) as unfinished,
        open(unfinished, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, [*(fields or rows[0])])
        writer.writeheader()
        writer.writerows(rows)
