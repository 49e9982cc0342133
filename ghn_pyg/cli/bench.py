"""Commands that compare graph encoders."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import check_folder, make_console, make_table, status, user_errors

if TYPE_CHECKING:
    from ..bench.config import BenchConfig
    from ..bench.runner import Result

app = typer.Typer(help="Benchmarks of graph encoders.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the benchmark; results that it holds stay.")]
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
    r"""Compares graph encoders: predicted parameters, properties, a task with far answers, time and memory.

    By default it is the benchmark of the README, which takes hours. A YAML file has the fields that --set names:

    ghn-pyg bench encoders --out runs/small -s encoders=\[mlp,gcn] -s seeds=[0] -s "tasks={cost: {nodes: [64]}}"

    What the folder holds is not measured again. Processes that have the same folder divide the work.
    """
    check_folder(out)
    with status("Loading"):
        import importlib

        from ..bench.config import load_bench
        from ..bench.runner import kept_results, run_bench
        from ..bench.summary import save_summary, tables
        from ..data import ImagesError
        from ..models.checkpoints.key_names import CheckpointError
        from ..training import TrainingError
    if modules:
        sys.path.insert(0, os.getcwd())  # console scripts do not look there; processes of tasks will, too
    for module in modules or ():
        with user_errors(ImportError):
            importlib.import_module(module)
    with user_errors(ValueError, ImportError, ImagesError, TrainingError, CheckpointError, OSError):
        chosen = load_bench(config, changes or ())
        total = len(chosen.tasks) * len(chosen.encoders) * len(chosen.seeds)
        _say_kept(chosen, out, total)
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


def _say_kept(chosen: BenchConfig, out: Path, total: int) -> None:
    """Says how many results are there already: nothing tells that an encoder's code has changed."""
    from ..bench.runner import CONFIG_FILE, kept_results

    if not (out / CONFIG_FILE).exists():
        return
    wanted = set(itertools.product(chosen.tasks, chosen.encoders, chosen.seeds))
    _, kept = kept_results(out)
    if there := sum((one.task, one.encoder, one.seed) in wanted and not one.error for one in kept):
        typer.echo(
            f"{there} of {total} results are there already; to measure an encoder again, whose code has changed, "
            f"remove {out}/results/*/ENCODER and {out}/ghns/ENCODER-*",
            err=True,
        )


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
        from ..bench.trained_networks import make_networks
        from ..data import ImagesError
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
            if not console.is_terminal:
                outcome = f"failed: {result.error}" if result.error else f"{result.seconds:.0f} s"
                typer.echo(f"{result.task}, {result.encoder}, seed {result.seed}: {outcome}", err=True)

        yield note
