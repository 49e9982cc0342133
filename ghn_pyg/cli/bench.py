"""Commands that compare graph encoders."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import check_folder, make_console, make_table, status, user_errors

if TYPE_CHECKING:
    from ..bench.runner import Result

app = typer.Typer(help="Benchmarks of graph encoders.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the benchmark; what it holds is gone on with.")]
Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file; by default the benchmark of the README.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="NAME=VALUE", help="A field to change, such as seeds=[0]; repeatable."),
]


@app.callback()
def _group() -> None:
    pass


@app.command()
def encoders(
    out: Out,
    config: Config = "encoders",
    changes: Changes = None,
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="A module that registers encoders of your own; repeatable."),
    ] = None,
) -> None:
    """Compares graph encoders: predicted parameters, properties, graph regression, time and memory."""
    check_folder(out)
    with status("Loading"):
        import importlib

        from ..bench.config import load_bench
        from ..bench.runner import kept_results, run_bench
        from ..bench.summary import save_summary, tables
        from ..images import ImagesError
        from ..models.keys import CheckpointError
        from ..training.run import TrainingError
    if modules:
        sys.path.insert(0, os.getcwd())  # console scripts do not look there; processes of tasks will, too
    for module in modules or ():
        with user_errors(ImportError):
            importlib.import_module(module)
    with user_errors(ValueError, ImportError, ImagesError, TrainingError, CheckpointError, OSError):
        chosen = load_bench(config, changes or ())
        total = len(chosen.tasks) * len(chosen.encoders) * len(chosen.seeds)
        with _bar(total) as note:
            results = run_bench(chosen, out, note)
        tasks, kept = kept_results(out)
        files = save_summary(tasks, kept, out)
    console = make_console()
    for task, found in tables(kept).items():
        table = make_table(task, *found.figures)
        for encoder, texts in found.lines.items():
            table.add_row(encoder, *texts)
        console.print(table)
        for failure in found.failures:
            console.print(f"failed: {failure}", style="red", soft_wrap=True, markup=False)
    console.print(f"saved {', '.join(map(str, files))}", soft_wrap=True, markup=False)
    if any(result.error for result in results):
        raise typer.Exit(1)


@app.command()
def networks(
    out: Out,
    config: Config = "encoders",
    changes: Changes = None,
) -> None:
    """Makes the data set of trained networks alone, whose properties the benchmark predicts."""
    check_folder(out)
    with status("Loading"):
        from ..bench.config import load_bench
        from ..bench.networks import make_networks
        from ..images import ImagesError
    with user_errors(ValueError, ImagesError, OSError):
        chosen = load_bench(config, changes or ())
        with status("Training networks"):
            files = make_networks(chosen, out)
    make_console().print(f"saved {', '.join(map(str, files))}", soft_wrap=True, markup=False)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Result], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Comparing", total=total)

        def note(result: Result) -> None:
            progress.update(bar, advance=1, description=f"{result.task}, {result.encoder}")

        yield note
