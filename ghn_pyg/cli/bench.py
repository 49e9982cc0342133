"""``ghn-pyg bench``: compares graph encoders."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .options import argument, option
from .terminal import make_console, make_table, print_line, status, user_errors

if TYPE_CHECKING:
    from ..bench.config import BenchConfig
    from ..bench.runner import Result

app = typer.Typer(help="Compare graph encoders.", no_args_is_help=True)

Out = Annotated[Path, option("DIR", "Folder of the benchmark. Results in it are kept.")]
Config = Annotated[str, argument("CONFIG", "A YAML file; by default the benchmark of the README.")]


@app.command()
def encoders(
    out: Out,
    config: Config = "encoders",
    changes: options.Changes = None,
    modules: Annotated[
        list[str] | None, option("MODULE", "Import a module that registers your encoders; repeatable.", "--import")
    ] = None,
) -> None:
    r"""Compare graph encoders: predicted parameters, properties, a long-range task, time and memory.

    The default is the benchmark of the README, which takes hours. Choose a smaller one with a YAML file, or with --set:

    ghn-pyg bench encoders --out runs/small -s encoders=\[mlp,gcn] -s seeds=[0] -s "tasks={cost: {nodes: [64]}}"

    Results in the folder are not measured again. Several processes with the same folder share the work.
    """
    options.check_folder(out)
    with status("Loading"):
        import importlib

        from ..bench.config import load_bench
        from ..bench.runner import load_results, run_bench
        from ..bench.summary import save_summary, tables
        from ..training.checkpoints import TrainingError
    if modules:
        sys.path.insert(0, os.getcwd())  # console scripts do not search it; it stays, for processes of the tasks
    for module in modules or ():
        with user_errors(ImportError):
            importlib.import_module(module)
    with user_errors(ValueError, ImportError, TrainingError, OSError):
        chosen = load_bench(config, changes or ())
        _print_kept(chosen, out)
        results = run_bench(chosen, out, _print_result)
        tasks, kept = load_results(out)
        files = save_summary(tasks, kept, out)
    for task, summary in tables(kept).items():
        table = make_table(task, *summary.figures)
        for encoder, texts in summary.lines.items():
            table.add_row(encoder, *texts)
        make_console().print(table)
        for failure in summary.failures:
            print_line(f"failed: {failure}", "red")
    print_line(f"saved {', '.join(map(str, files))}")
    if any(result.error for result in results):
        raise typer.Exit(1)


def _print_kept(chosen: BenchConfig, out: Path) -> None:
    """Prints how many results are kept, because a change of an encoder's code does not show in them."""
    from ..bench.runner import CONFIG_FILE, load_results

    if not (out / CONFIG_FILE).exists():
        return
    wanted = set(itertools.product(chosen.tasks, chosen.encoders, chosen.seeds))
    _, results = load_results(out)
    if kept := sum((result.task, result.encoder, result.seed) in wanted and not result.error for result in results):
        typer.echo(
            f"{kept} of {len(wanted)} results exist already. If the code of an encoder has changed, remove "
            f"{out}/results/*/ENCODER and {out}/ghns/ENCODER-* to measure it again",
            err=True,
        )


@app.command()
def networks(out: Out, config: Config = "encoders", changes: options.Changes = None) -> None:
    """Make the data set of trained networks whose properties the benchmark predicts, and nothing else."""
    options.check_folder(out)
    with status("Loading"):
        from ..bench.config import load_bench
        from ..bench.property_prediction import make_networks
    with user_errors(ValueError, ImportError, OSError):
        chosen = load_bench(config, changes or ())
        with status("Training networks"):
            files = make_networks(chosen.tasks, out)
    print_line(f"saved {', '.join(map(str, files))}")


def _print_result(result: Result) -> None:
    outcome = f"failed: {result.error}" if result.error else f"{result.seconds:.0f} s"
    typer.echo(f"{result.task}, {result.encoder}, seed {result.seed}: {outcome}", err=True)
