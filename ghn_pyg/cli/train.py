"""``ghn-pyg train``: meta-trains GHNs."""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from . import options
from .options import argument, flag, option
from .terminal import counted, epoch_bar, fail, print_rows, status, user_errors

if TYPE_CHECKING:
    from ..training.logs import LogRow

_DEV_STEPS: Final = 3
_WINDOW: Final = 100  # steps that the progress bar averages over


def train(
    config: Annotated[str, argument("CONFIG", "A recipe such as ghn3-t-cifar10 (see --list), or a YAML file.")] = "",
    out: Annotated[Path | None, option("DIR", "Folder of the run. An existing run is resumed.")] = None,
    changes: options.Changes = None,
    steps: Annotated[int | None, option("N", "Stop after N steps of the run, to resume it later.", min=1)] = None,
    fast_dev_run: Annotated[
        bool, flag("--fast-dev-run", "Test the run with a few steps in a temporary folder.")
    ] = False,
    device: options.Device = "auto",
    workers: Annotated[int, option("N", "Processes that draw architectures, and as many for images.", min=0)] = 0,
    listing: Annotated[bool, flag("--list", "List the recipes.")] = False,
) -> None:
    """Meta-train a GHN. Start it with torchrun for several GPUs or machines."""
    with status("Loading"):
        from ..training.config import load_config, recipe_names
    if listing:
        typer.echo("\n".join(recipe_names()))
        return
    if not config:
        fail("expected a CONFIG: the name of a recipe (see --list) or a YAML file")
    if out is None and not fast_dev_run:
        fail("expected --out with the folder of the run, or --fast-dev-run to test it")
    if device != "auto":
        options.check_device(device)
    with status("Loading"):
        from ..training.checkpoints import TrainingError
        from ..training.fabric import make_fabric
        from ..training.run import run_training
    with user_errors(ValueError, ImportError, TrainingError, OSError):
        chosen = load_config(config, changes or ())
        fabric = make_fabric(chosen.precision, device)
        place = tempfile.TemporaryDirectory() if out is None or fast_dev_run else nullcontext(out)
        with place as name, _bar(chosen.epochs, fabric.is_global_zero) as (note, last):
            folder = Path(name)
            limit = min(_DEV_STEPS, steps or _DEV_STEPS) if fast_dev_run else steps
            try:
                run = run_training(chosen, folder, fabric=fabric, steps=limit, workers=workers, progress=note)
            except KeyboardInterrupt:
                if fabric.is_global_zero and folder == out:
                    typer.echo(f"Stopped. The same command resumes from the last checkpoint in {out}.", err=True)
                raise
    if not fabric.is_global_zero:
        return
    rows = [("steps", f"{last[-1].step + 1:,}" if last else "already complete")]
    if last:
        rows += [("loss", f"{_mean(last, 'loss'):.4f}"), ("top-1", f"{_mean(last, 'top1'):.2%} of training images")]
    progress = run.state.progress
    if run.validation and progress.best is not None:
        unseen = f"of {len(run.images.test):,} held-out images, by {len(run.validation)} unseen networks"
        rows.append(("best", f"{1 - progress.best:.2%} {unseen}"))
    if chosen.start is not None:
        rows.append(("started from", progress.source))
    if progress.skipped:
        counts = f"{progress.skipped:,} of {counted(progress.step, 'step')}, as losses or gradients were not finite"
        rows.append(("skipped", f"{counts}; {counted(progress.rollbacks, 'roll-back')}"))
    if progress.left_out:
        rows.append(("left out", f"{counted(progress.left_out, 'network')}, as memory did not suffice"))
    if folder == out:
        which = "the last one" if run.saved_step == progress.step else "the last good one"
        rows.append(("saved", f"{out / 'ghn'}, {which}, after {counted(run.saved_step, 'step')}"))
        rows += [("the best one", f"{out / 'best'}")] if (out / "best").exists() else []
        rows.append(("log", f"{out / 'log.csv'}"))
    elif out is not None:
        rows.append(("saved", f"nothing in {out}, because of --fast-dev-run"))
    print_rows(config, rows)


@contextmanager
def _bar(epochs: int, visible: bool) -> Iterator[tuple[Callable[[LogRow], None], deque[LogRow]]]:
    """A progress bar with loss, accuracy and speed, and the last rows of the log."""
    last: deque[LogRow] = deque(maxlen=_WINDOW)
    val = ""
    with epoch_bar("", epochs, visible) as update:

        def note(row: LogRow) -> None:
            nonlocal val
            last.append(row)
            if not math.isnan(row.val_top1):
                val = f"  unseen {row.val_top1:.1%}"
            speed = sum(row.architectures for row in last) / sum(row.seconds for row in last)
            figures = f"loss {_mean(last, 'loss'):.3f}  top-1 {_mean(last, 'top1'):.1%}{val}  {speed:.1f} arch/s"
            update(row.epoch, f"step {row.step + 1:,}  {figures}")

        yield note, last


def _mean(rows: deque[LogRow], figure: str) -> float:
    values: list[Any] = [getattr(row, figure) for row in rows if not row.skipped]
    return sum(values) / len(values) if values else float("nan")
