"""``ghn-pyg train``: meta-trains GHNs."""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from . import my_images, options
from .options import argument, flag, option
from .terminal import counted, epoch_bar, fail, make_console, make_table, print_line, print_rows, status, user_errors

if TYPE_CHECKING:
    from ..training.config import RecipeCost
    from ..training.logs import LogRow
    from ..training.run import Run

_DEV_STEPS: Final = 3
_WINDOW: Final = 100  # steps that the progress bar averages over


def train(
    config: Annotated[
        str,
        argument(
            "CONFIG", "A recipe such as ghn3-t-cifar10 (see --list), a YAML file, or my-images for your own images."
        ),
    ] = "",
    folder: Annotated[
        Path | None,
        argument("FOLDER", "Of my-images: FOLDER/train/CLASS/IMAGE and val or test, or FOLDER/CLASS/IMAGE."),
    ] = None,
    out: Annotated[
        Path | None, option("DIR", "Folder of the run. An existing run is resumed. For my-images runs/FOLDER.")
    ] = None,
    changes: options.Changes = None,
    steps: Annotated[int | None, option("N", "Stop after N steps of the run, to resume it later.", min=1)] = None,
    fast_dev_run: Annotated[
        bool, flag("--fast-dev-run", "Test the run with a few steps in a temporary folder.")
    ] = False,
    device: options.Device = "auto",
    workers: Annotated[int, option("N", "Processes that draw architectures, and as many for images.", min=0)] = 0,
    processes: Annotated[
        int | None,
        option(
            "N", "Processes to train with on a CPU. One by default; for my-images as many as cores, at most 4.", min=1
        ),
    ] = None,
    minutes: Annotated[float, option("N", "With my-images: the time to train for.", min=0.01)] = 14,
    networks: Annotated[
        list[str] | None,
        option("ARCH[,ARCH…]", f"With my-images: networks to measure in the end, each {options.SUBJECTS}; repeatable."),
    ] = None,
    unseen: Annotated[int, option("N", "With my-images: unseen architectures to measure in the end.", min=0)] = 12,
    listing: Annotated[bool, flag("--list", "List the recipes with their size, time and memory.")] = False,
) -> None:
    """Meta-train a GHN. Start it with torchrun for several GPUs or machines."""
    with status("Loading"):
        from ..training.config import load_config, recipe_costs
    if listing:
        _print_recipes(recipe_costs())
        return
    if not config:
        fail("expected a CONFIG: the name of a recipe (see --list) or a YAML file")
    own = config == my_images.NAME
    if own:
        images_folder = my_images.check_folder(folder)
        out = out or Path("runs", images_folder.resolve().name)
    elif folder is not None:
        fail(f"expected one CONFIG, got {config} and {folder}")
    if out is None and not fast_dev_run:
        fail("expected --out with the folder of the run, or --fast-dev-run to test it")
    if device != "auto":
        options.check_device(device)
    with status("Loading"):
        from ..training.checkpoints import TrainingError
        from ..training.fabric import make_fabric
        from ..training.image_batches import run_images
        from ..training.run import run_training
    # A temporary folder is made only where it is needed, for a run that is killed would leave it.
    place = tempfile.TemporaryDirectory() if out is None or fast_dev_run else nullcontext(out)
    with user_errors(ValueError, ImportError, TrainingError, OSError), place as name:
        target = Path(name)
        limit = min(_DEV_STEPS, steps or _DEV_STEPS) if fast_dev_run else steps
        recipe = images = None
        if own:
            recipe = my_images.FolderRecipe.make(images_folder, target, changes or ())
        chosen = recipe.config() if recipe else load_config(config, changes or ())
        if processes is None:
            processes = my_images.count_processes(chosen) if own else 1
        fabric = make_fabric(chosen.precision, device, processes)
        if recipe:
            images = run_images(chosen, chosen.augment)
            subjects = my_images.named_networks(networks or (), images)
            chosen = recipe.start(images, fabric, minutes)
        with _bar(chosen.epochs, fabric.is_global_zero) as (note, last):
            try:
                run = run_training(
                    chosen, target, fabric=fabric, images=images, steps=limit, workers=workers, progress=note
                )
            except KeyboardInterrupt:
                if fabric.is_global_zero and target == out:
                    typer.echo(f"Stopped. The same command resumes from the last checkpoint in {out}.", err=True)
                raise
        if not fabric.is_global_zero:
            return
        _print_summary(config, run, last, out, saved=target == out)
        if images and not fast_dev_run:
            my_images.print_accuracies(run.state.trained_ghn.eval(), images, subjects, unseen, workers)


def _print_recipes(costs: Mapping[str, RecipeCost]) -> None:
    table = make_table("recipe", "GHN parameters", "steps", "on 2 CPU cores", "memory")
    for name, cost in costs.items():
        least = "" if cost.measured else "> "
        duration = _duration(cost.steps * cost.seconds)
        table.add_row(name, f"{cost.parameters:,}", f"{cost.steps:,}", least + duration, f"{least}{cost.memory:g} GB")
    table.add_row(my_images.NAME, "about 1,748,000", "as many as fit", "14 min, or --minutes", "2.4 GB")
    make_console().print(table)
    print_line("> is computed from the networks' multiply-adds and the GHN's weights; other values are measured.")


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds / 60:,.0f} min"


def _print_summary(config: str, run: Run, last: deque[LogRow], out: Path | None, saved: bool) -> None:
    rows = [("steps", f"{last[-1].step + 1:,}" if last else "already complete")]
    if last:
        rows += [("loss", f"{_mean(last, 'loss'):.4f}"), ("top-1", f"{_mean(last, 'top1'):.2%} of training images")]
    progress = run.state.progress
    if run.validation and progress.best is not None:
        unseen = f"of {len(run.images.test):,} held-out images, by {len(run.validation)} unseen networks"
        rows.append(("best", f"{1 - progress.best:.2%} {unseen}"))
    if run.config.start is not None:
        rows.append(("started from", progress.source))
    if progress.skipped:
        counts = f"{progress.skipped:,} of {counted(progress.step, 'step')}, as losses or gradients were not finite"
        rows.append(("skipped", f"{counts}; {counted(progress.rollbacks, 'roll-back')}"))
    if progress.left_out:
        rows.append(("left out", f"{counted(progress.left_out, 'network')}, as memory did not suffice"))
    if out is not None and saved:
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
