"""``ghn-pyg deepnets``: samples, measures, exports and shows architectures of DeepNets-1M."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .files import save_csv, save_text
from .options import argument, option
from .terminal import counted, fail, make_console, make_table, print_line, print_rows, progress_bar, status, user_errors

if TYPE_CHECKING:
    from rich.table import Table

    from ..families.deepnets.architecture import Architecture
    from ..families.deepnets.statistics import Measured

app = typer.Typer(help="Sample, measure, export and show training architectures (DeepNets-1M).", no_args_is_help=True)

Split = Annotated[str, argument("SPLIT", f"{', '.join(options.SPLITS[:-1])} or {options.SPLITS[-1]}.")]
Start = Annotated[int, option("N", "Position of the first architecture in the split.", min=0)]
ImageSize = Annotated[int, option("PIXELS", "Height and width of the networks' images.")]


@app.command()
def sample(
    split: Split = "train",
    count: Annotated[int, option("N", "Number of architectures.", min=1)] = 10,
    start: Start = 0,
    seed: options.Seed = 0,
    out: Annotated[Path | None, option("FILE.json", "Save a list of arguments in the published format.")] = None,
) -> None:
    """Draw and list architectures of a split."""
    options.check_splits(split)
    options.check_file(out, [".json"])
    architectures = list(_draw(split, start, count, seed, "Sampling"))
    from ..families.deepnets.statistics import measure_split

    table = make_table("position", "nodes", "parameters", "cells", "steps", "norm", "operations of a normal cell")
    table.columns[-1].justify = "left"
    measured = measure_split(split, architectures)
    for position, (architecture, figures) in enumerate(zip(architectures, measured, strict=True), start):
        normal = architecture.genotype.normal
        counts = (f"{figures.nodes:,}", f"{figures.parameters:,}", str(figures.cells), str(len(normal) // 2))
        table.add_row(str(position), *counts, architecture.norm or "none", ", ".join(name for name, _ in normal))
    rows = []
    if out is not None:
        save_text(out, json.dumps([architecture.to_args() for architecture in architectures], indent=1) + "\n")
        rows.append(("saved", str(out)))
    print_rows(f"{split}: {counted(len(architectures), 'architecture')} from position {start}", rows, table)


@app.command()
def stats(
    splits: Annotated[list[str] | None, argument("SPLIT", "Splits to compare; all by default.")] = None,
    count: Annotated[int, option("N", "Most architectures of each split.", min=1)] = 500,
    seed: options.Seed = 0,
    image_size: ImageSize = 32,
    out: Annotated[Path | None, option("FILE.csv", "Save the figures of each architecture.")] = None,
    plot: options.PictureFile = None,
) -> None:
    """Compare size, depth and operations of the architectures of splits."""
    options.check_splits(*(splits or ()))
    options.check_file(out, [".csv"])
    options.check_file(plot, options.PICTURE_SUFFIXES)
    with status("Loading"), user_errors(ImportError):
        from ..families.deepnets.architecture_sampling import SPLIT_SIZES
        from ..families.deepnets.statistics import measure_split, operation_shares
        from ..utils.optional import require
        from ..viz.deepnets_plots import plot_statistics

        if plot is not None:
            require("matplotlib.figure", "plot", "pictures")
    measured: dict[str, list[Measured]] = {}
    for split in splits or SPLIT_SIZES:
        architectures = _draw(split, 0, min(count, SPLIT_SIZES[split]), seed, f"Measuring {split}")
        with user_errors(ValueError):
            measured[split] = list(measure_split(split, architectures, image_size))
    console = make_console()
    console.print(_summary_table(measured))
    shares = {split: operation_shares(figures) for split, figures in measured.items()}
    table = make_table("operation", *shares)
    for name in next(iter(shares.values())):
        table.add_row(name, *(f"{share[name]:.1%}" for share in shares.values()))
    console.print(table)
    if out is not None:
        _save_figures(out, measured)
        print_line(f"saved {out}")
    if plot is not None:
        with status("Drawing"), user_errors(OSError):
            plot_statistics(measured, plot)
        print_line(f"saved {plot}")


@app.command()
def export(
    split: Split,
    out: Annotated[Path, option("FILE.hdf5", "The file to write. Its JSON file is written beside it.")],
    count: Annotated[int | None, option("N", "Number of architectures; the whole split by default.", min=1)] = None,
    start: Start = 0,
    seed: options.Seed = 0,
) -> None:
    """Write architectures in the published format, HDF5 and JSON."""
    options.check_splits(split)
    options.check_file(out, [".hdf5"])
    with status("Loading"), user_errors(ImportError):
        from ..families.deepnets import SPLIT_SIZES, DatasetError
        from ..families.deepnets import export as write
        from ..utils.optional import require

        require("h5py", "deepnets", "published files of architectures")
    number = count if count is not None else max(SPLIT_SIZES[split] - start, 1)
    with user_errors(DatasetError, OSError):
        write({split: _draw(split, start, number, seed, f"Exporting {split}")}, out)
    from rich.filesize import decimal

    print_rows(split, [("architectures", f"{number:,}"), ("saved", f"{out}, {decimal(out.stat().st_size)}")])


@app.command()
def show(
    split: Split,
    position: Annotated[int, argument("POSITION", "Position in the split.", min=0)],
    seed: options.Seed = 0,
    image_size: ImageSize = 32,
    num_classes: Annotated[int, option("N", "Number of classes.", min=1, max=options.MAX_CLASSES)] = 10,
    out: options.GraphFile = None,
) -> None:
    """Show the cells, the size and the graph of one architecture."""
    options.check_splits(split)
    options.check_file(out, options.GRAPH_SUFFIXES)
    with status("Loading"):
        from ..families.deepnets import evaluation_width, graph_with_architecture, measure
        from ..viz.save import save_view

    (drawn,) = _draw(split, position, 1, seed, "Sampling")
    architecture = drawn.replace(width=evaluation_width(split, image_size))
    with user_errors(ValueError):
        graph = graph_with_architecture(architecture, num_classes, image_size)
        figures = measure(architecture, num_classes, image_size)
    title = f"{split} {position}"
    if out is not None:
        with user_errors(OSError):
            save_view(graph, out, title)
    genotype = architecture.genotype
    features = "the global average" if architecture.global_average else "the flattened map"
    rows = [
        ("normal cell", _describe_cell(genotype.normal, genotype.normal_concat)),
        ("reduction cell", _describe_cell(genotype.reduce, genotype.reduce_concat)),
        ("cells", f"{architecture.cells}, width {architecture.width} × {architecture.multiplier} at each reduction"),
        ("norm", architecture.norm or "none"),
        ("stem", _describe_stem(architecture)),
        ("preprocessing", "1×1 convolutions" if architecture.preprocess else "none"),
        ("classifier", f"{counted(architecture.classifier_layers, 'layer')} on {features}"),
        ("nodes", f"{figures.nodes:,}, {graph.num_edges:,} edges, depth {figures.depth:,}"),
        ("parameters", f"{figures.parameters:,}"),
    ]
    if out is not None:
        rows.append(("saved", str(out)))
    print_rows(title, rows)


def _draw(split: str, start: int, count: int, seed: int, description: str) -> Iterator[Architecture]:
    """Draws architectures one after another, with a progress bar."""
    from ..families.deepnets.architecture_sampling import SPLIT_SIZES, sample

    if start + count > SPLIT_SIZES[split]:
        asked = f"{start:,}" if count == 1 else f"{start:,} to {start + count - 1:,}"
        fail(f"split {split!r} has positions 0 to {SPLIT_SIZES[split] - 1:,}, got {asked}")

    def draw() -> Iterator[Architecture]:
        with progress_bar(count, description) as advance:
            for position in range(start, start + count):
                yield sample(split, position, seed)
                advance()

    return draw()


def _summary_table(measured: dict[str, list[Measured]]) -> Table:
    from ..families.deepnets.statistics import summarize

    table = make_table("split", "architectures", "", "mean", "std", "smallest", "median", "largest")
    for split, architectures in measured.items():
        head = (split, f"{len(architectures):,}")
        table.add_section()
        for measure, values in summarize(architectures).items():
            figures = (f"{values.mean:,.1f}", f"{values.std:,.1f}", f"{values.smallest:,}", f"{values.median:,.0f}")
            table.add_row(*head, measure, *figures, f"{values.largest:,}")
            head = ("", "")
    return table


def _save_figures(out: Path, measured: dict[str, list[Measured]]) -> None:
    from ..families.deepnets.genotype import OPERATIONS
    from ..families.deepnets.statistics import MEASURES

    rows = [
        {"split": split, "position": position}
        | {name: getattr(figures, name) for name in MEASURES}
        | {name: figures.operations[name] for name in OPERATIONS}
        for split, architectures in measured.items()
        for position, figures in enumerate(architectures)
    ]
    save_csv(out, rows)


def _describe_stem(architecture: Architecture) -> str:
    if architecture.attention:
        return "patches"
    kernel = f"{architecture.stem_kernel}×{architecture.stem_kernel}"
    if architecture.stem_type == 0:
        return f"one {kernel} convolution{', max-pool' if architecture.stem_pool else ''}"
    return f"three convolutions, the first {kernel}"


def _describe_cell(branches: Iterable[tuple[str, int]], concat: Iterable[int]) -> str:
    operations = [f"{name}({state})" for name, state in branches]
    pairs = zip(operations[::2], operations[1::2], strict=True)
    states = [f"{state} = {first} + {second}" for state, (first, second) in enumerate(pairs, 2)]
    return f"{'; '.join(states)}; output {', '.join(map(str, concat))}"
