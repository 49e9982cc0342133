"""The command that meta-trains GHNs."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .console import Device, check_device, fail, print_rows, status, user_errors

if TYPE_CHECKING:
    from ..training.logs import LogRow

_FAST: Final = 3
_WINDOW: Final = 100
"""Steps over which the progress bar averages."""


def train(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A recipe such as ghn3-t-cifar10, or a YAML file; see --list.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; a run that it holds is gone on with.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="A field to change, such as ghn.layers=5; repeatable."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after so many steps in all; go on another time.")
    ] = None,
    fast_dev_run: Annotated[
        bool, typer.Option("--fast-dev-run", help=f"Take {_FAST} steps in a temporary folder, to see that all works.")
    ] = False,
    device: Device = "auto",
    workers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Processes that make architectures, and as many that read images.")
    ] = 0,
    listing: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
) -> None:
    """Meta-trains a GHN; under torchrun on many GPUs and machines."""
    with status("Loading"):
        from ..training import load_config, recipe_names
    if listing:
        typer.echo("\n".join(recipe_names()))
        return
    if not config:
        fail("which GHN is to be trained? Name a recipe (see --list) or a YAML file")
    if out is None and not fast_dev_run:
        fail("where is the run to be kept? Name a folder by --out, or try it with --fast-dev-run")
    if device != "auto":
        check_device(device)
    with status("Loading"):
        from ..data import ImagesError
        from ..models.checkpoints.key_names import CheckpointError
        from ..training import TrainingError
        from ..training.fabric import make_fabric
        from ..training.run import train as meta_train
    with user_errors(ValueError, ImportError, ImagesError, TrainingError, CheckpointError, OSError):
        chosen = load_config(config, changes or ())
        fabric = make_fabric(chosen.precision, device)
        with tempfile.TemporaryDirectory() as scratch, _bar(chosen.epochs, fabric.is_global_zero) as (note, last):
            folder = Path(scratch) if out is None or fast_dev_run else out
            limit = min(_FAST, steps or _FAST) if fast_dev_run else steps
            try:
                meta_train(chosen, folder, fabric=fabric, steps=limit, workers=workers, progress=note)
            except KeyboardInterrupt:
                if fabric.is_global_zero and folder == out:
                    typer.echo(f"Stopped; the same command goes on from the last checkpoint in {out}.", err=True)
                raise
    if fabric.is_global_zero:
        rows = [("steps", f"{last[-1].step + 1:,}")] if last else [("steps", "none were left to take")]
        if last:
            rows += [("loss", f"{_mean(last, 'loss'):.4f}"), ("top-1", f"{_mean(last, 'top1'):.2%} of training images")]
        if folder == out:
            rows += [("saved", f"{out / 'ghn'}, the log {out / 'log.csv'}")]
        elif out is not None:
            rows += [("kept", f"nothing in {out}, as by --fast-dev-run")]
        print_rows(config, rows)


@contextmanager
def _bar(epochs: int, shown: bool) -> Iterator[tuple[Callable[[LogRow], None], deque[LogRow]]]:
    """A progress bar with loss, accuracy and speed on a terminal, and the last rows of the log."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    figures = TextColumn("loss {task.fields[loss]:.3f}  top-1 {task.fields[top1]:.1%}  {task.fields[speed]:.1f} arch/s")
    place = TextColumn("epoch {task.completed:.2f} of {task.total}")
    columns = (place, BarColumn(), figures, TimeRemainingColumn())
    last: deque[LogRow] = deque(maxlen=_WINDOW)
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task("", total=epochs, loss=float("nan"), top1=float("nan"), speed=0.0)

        def note(row: LogRow) -> None:
            last.append(row)
            progress.update(
                task, completed=row.epoch, loss=_mean(last, "loss"), top1=_mean(last, "top1"),
                speed=sum(one.architectures for one in last) / sum(one.seconds for one in last),
            )  # fmt: skip

        yield note, last


def _mean(rows: deque[LogRow], figure: str) -> float:
    values: list[Any] = [getattr(row, figure) for row in rows if not row.skipped]
    return sum(values) / len(values) if values else float("nan")
