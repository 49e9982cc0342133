"""Commands on DeepNets-1M, the distribution of training architectures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    GRAPH_SUFFIXES,
    SPLITS,
    Seed,
    check_output,
    check_splits,
    counted,
    fail,
    make_console,
    make_table,
    print_rows,
    status,
    user_errors,
)

if TYPE_CHECKING:
    from ..families.deepnets import Architecture, Measured, Summary

app = typer.Typer(
    help="Samples, measures, exports and shows training architectures (DeepNets-1M).", no_args_is_help=True
)

Split = Annotated[
    str,
    typer.Argument(metavar="SPLIT", help=f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]}."),
]
Start = Annotated[int, typer.Option(min=0, metavar="N", help="Position of the first architecture in the split.")]
ImageSize = Annotated[int, typer.Option(metavar="PIXELS", help="Height and width of the networks' images.")]


@app.command()
def sample(
    split: Split = "train",
    count: Annotated[int, typer.Option(min=1, metavar="N", help="How many architectures.")] = 10,
    start: Start = 0,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Where to save them, as a list of published argument dictionaries."),
    ] = None,
) -> None:
    """Draws architectures of a split and lists them."""
    check_splits(split)
    if out is not None:
        check_output(out, [".json"], "architectures")
    architectures = list(_draw(split, start, count, seed, "Sampling"))
    table = make_table("position", "nodes", "parameters", "cells", "steps", "norm", "operations of a normal cell")
    table.columns[-1].justify = "left"
    for position, (architecture, one) in enumerate(
        zip(architectures, _measure(split, architectures, 32), strict=True), start
    ):
        normal = architecture.genotype.normal
        figures = (f"{one.nodes:,}", f"{one.parameters:,}", str(one.cells), str(len(normal) // 2))
        table.add_row(str(position), *figures, architecture.norm or "none", ", ".join(name for name, _ in normal))
    if out is not None:
        from ..utils.atomic_files import replacing

        content = json.dumps([architecture.to_args() for architecture in architectures], indent=1) + "\n"
        with user_errors(OSError), replacing(out) as unfinished:
            unfinished.write_text(content, encoding="utf-8")
    saved = [("saved", str(out))] if out is not None else []
    print_rows(f"{split}: {counted(len(architectures), 'architecture')} from position {start}", saved, table)


@app.command()
def stats(
    splits: Annotated[
        list[str] | None, typer.Argument(metavar="[SPLIT]...", help="Splits to compare; all by default.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="How many architectures of each split at most.")] = 500,
    seed: Seed = 0,
    image_size: ImageSize = 32,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Where to save the figures of every architecture.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to save a picture, as .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Shows how large and how deep the architectures of splits are, and of which operations."""
    check_splits(*(splits or ()))
    if out is not None:
        check_output(out, [".csv"], "figures")
    if plot is not None:
        check_output(plot, [".png", ".svg", ".pdf"], "a picture")
    with status("Loading"):
        from ..families.deepnets import SPLIT_SIZES, operation_shares, summarize

    if plot is not None:
        from ..utils.optional import require
        from ..viz.deepnets_plots import plot_statistics

        with user_errors(ImportError):
            require("matplotlib.figure", "plot", "pictures")
    measured: dict[str, list[Measured]] = {}
    for split in splits or SPLIT_SIZES:
        number = min(count, SPLIT_SIZES.get(split, count))
        architectures = _draw(split, 0, number, seed, f"Measuring {split}")
        with user_errors(ValueError):
            measured[split] = list(_measure(split, architectures, image_size))
    summaries = {split: summarize(found) for split, found in measured.items()}
    console = make_console()
    console.print(_summary_table(summaries, {split: len(found) for split, found in measured.items()}))
    shares = {split: operation_shares(found) for split, found in measured.items()}
    table = make_table("operation", *shares)
    for name in next(iter(shares.values())):
        table.add_row(name, *(f"{share[name]:.1%}" for share in shares.values()))
    console.print(table)
    if out is not None:
        with user_errors(OSError):
            _save_figures(out, measured)
        console.print(f"saved {out}", soft_wrap=True, markup=False)
    if plot is not None:
        with status("Drawing"), user_errors(OSError):
            plot_statistics(measured, plot)
        console.print(f"saved {plot}", soft_wrap=True, markup=False)


@app.command()
def export(
    split: Split,
    out: Annotated[
        Path, typer.Option(metavar="FILE.hdf5", help="The file to write; its JSON file is written beside it.")
    ],
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many architectures; all of the split by default.")
    ] = None,
    start: Start = 0,
    seed: Seed = 0,
) -> None:
    """Writes architectures in the published format, HDF5 and JSON."""
    check_splits(split)
    check_output(out, [".hdf5"], "architectures")
    with status("Loading"), user_errors(ImportError):
        from ..families.deepnets import SPLIT_SIZES
        from ..families.deepnets import export as write
        from ..utils.optional import require

        require("h5py", "deepnets", "published files of architectures")
    number = count if count is not None else max(SPLIT_SIZES.get(split, 1) - start, 1)
    with user_errors(OSError):
        write({split: _draw(split, start, number, seed, f"Exporting {split}")}, out)
    from rich.filesize import decimal

    print_rows(split, [("architectures", f"{number:,}"), ("saved", f"{out}, {decimal(out.stat().st_size)}")])


@app.command()
def show(
    split: Split,
    position: Annotated[int, typer.Argument(min=0, metavar="POSITION", help="Which architecture of the split.")],
    seed: Seed = 0,
    image_size: ImageSize = 32,
    num_classes: Annotated[int, typer.Option(min=1, metavar="N", help="Number of classes.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to save the graph, as .svg (a picture), .graphml or .json."),
    ] = None,
) -> None:
    """Shows one architecture: its cells, its size and its graph."""
    check_splits(split)
    if out is not None:
        check_output(out, GRAPH_SUFFIXES, "a graph")
    with status("Loading"):
        from ..families.deepnets import evaluation_width, graph_with_architecture, measure
        from ..viz.save import save_view

    (drawn,) = _draw(split, position, 1, seed, "Sampling")
    architecture = drawn.replace(width=evaluation_width(split, image_size))
    with user_errors(ValueError):
        graph, one = graph_with_architecture(architecture, num_classes, image_size), measure(architecture, num_classes, image_size)
    title = f"{split} {position}"
    if out is not None:
        with user_errors(OSError):
            save_view(graph, out, title)
    genotype = architecture.genotype
    rows = [
        ("normal cell", _cell(genotype.normal, genotype.normal_concat)),
        ("reduction cell", _cell(genotype.reduce, genotype.reduce_concat)),
        ("cells", f"{architecture.cells}, width {architecture.width} × {architecture.multiplier} at each reduction"),
        ("norm", architecture.norm or "none"),
        ("stem", _stem(architecture)),
        ("preprocessing", "1×1 convolutions" if architecture.preprocess else "none"),
        ("classifier", f"{counted(architecture.classifier_layers, 'layer')} on "
         f"{'the global average' if architecture.global_average else 'the flattened map'}"),
        ("nodes", f"{one.nodes:,}, {graph.num_edges:,} edges, depth {one.depth:,}"),
        ("parameters", f"{one.parameters:,}"),
        *([("saved", str(out))] if out is not None else []),
    ]  # fmt: skip
    print_rows(title, rows)


def _draw(split: str, start: int, count: int, seed: int, message: str) -> Iterator[Architecture]:
    """Architectures of a split one after another, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    from ..families.deepnets import SPLIT_SIZES, check_index, sample

    with user_errors(ValueError):
        check_index(split, 0, seed)
    if start + count > SPLIT_SIZES[split]:
        asked = f"{start:,}" if count == 1 else f"{start:,} to {start + count - 1:,}"
        fail(f"split {split!r} has indices 0 to {SPLIT_SIZES[split] - 1:,}, got {asked}")
    console = Console(stderr=True)
    positions = range(start, start + count)
    return (
        sample(split, position, seed)
        for position in track(positions, message, console=console, transient=True, disable=not console.is_terminal)
    )


def _measure(split: str, architectures: Iterable[Architecture], image_size: int) -> Iterator[Measured]:
    from ..families.deepnets import measure_split

    return measure_split(split, architectures, image_size)


def _summary_table(summaries: dict[str, dict[str, Summary]], counts: dict[str, int]) -> Any:
    table = make_table("split", "architectures", "", "mean", "std", "smallest", "median", "largest")
    for split, summary in summaries.items():
        for row, (measure, found) in enumerate(summary.items()):
            head = (split, f"{counts[split]:,}") if row == 0 else ("", "")
            spread = (f"{found.mean:,.1f}", f"{found.std:,.1f}", f"{found.smallest:,}", f"{found.median:,.0f}")
            table.add_row(*head, measure, *spread, f"{found.largest:,}", end_section=row == len(summary) - 1)
    return table


def _save_figures(out: Path, measured: dict[str, list[Measured]]) -> None:
    import csv

    from ..families.deepnets import MEASURES, OPERATIONS
    from ..utils.atomic_files import replacing

    with replacing(out) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "position", *MEASURES, *OPERATIONS])
        for split, found in measured.items():
            for position, one in enumerate(found):
                figures = [getattr(one, name) for name in MEASURES]
                writer.writerow([split, position, *figures, *(one.operations[name] for name in OPERATIONS)])


def _stem(architecture: Architecture) -> str:
    if architecture.attention:
        return "patches"
    kernel = f"{architecture.stem_kernel}×{architecture.stem_kernel}"
    if architecture.stem_type == 0:
        return f"one {kernel} convolution{', max-pool' if architecture.stem_pool else ''}"
    return f"three convolutions, the first {kernel}"


def _cell(branches: Iterable[tuple[str, int]], concat: Iterable[int]) -> str:
    text = [f"{name}({state})" for name, state in branches]
    steps = [f"{state} = {first} + {second}" for state, (first, second) in enumerate(
        zip(text[::2], text[1::2], strict=True), 2)]  # fmt: skip
    return f"{'; '.join(steps)}; output {', '.join(map(str, concat))}"
