"""Commands that compare graph encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import check_folder, fail, make_console, make_table, status, user_errors

if TYPE_CHECKING:
    from ..bench.runner import Result

app = typer.Typer(help="Benchmarks of graph encoders.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def encoders(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results; what it holds is gone on with.")],
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A YAML file; by default the benchmark of the README.")
    ] = "encoders",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="A field to change, such as seeds=[0]; repeatable."),
    ] = None,
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
        from ..bench.runner import run_bench
        from ..bench.summary import cells, save_summary
        from ..images import ImagesError
        from ..models.keys import CheckpointError
        from ..training.run import TrainingError
    for module in modules or ():
        with user_errors(ImportError):
            importlib.import_module(module)
    with user_errors(ValueError, ImportError, ImagesError, TrainingError, CheckpointError, OSError):
        chosen = load_bench(config, changes or ())
        total = len(chosen.tasks) * len(chosen.encoders) * len(chosen.seeds)
        with _bar(total) as note:
            results = run_bench(chosen, out, note)
        files = save_summary(chosen, results, out)
    if not results:
        fail("nothing was measured")
    console = make_console()
    for task, rows in cells(results).items():
        table = make_table(task, *rows)
        for encoder in chosen.encoders:
            table.add_row(encoder, *(row[encoder].text() if encoder in row else "–" for row in rows.values()))
        console.print(table)
    console.print(f"saved {', '.join(map(str, files))}", soft_wrap=True, markup=False)


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
