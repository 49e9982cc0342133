"""The command that measures how well predicted parameters do."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from .console import Seed, check_device, check_output, check_splits, fail, make_console, make_table, status, user_errors

if TYPE_CHECKING:
    from ..evaluation.report import Report
    from ..evaluation.subjects import Subject
    from ..finetuning.config import FitConfig
    from ..images import Images

_SPLITS: Final = ("test", "wide", "deep", "dense", "bnfree")
_NETWORKS: Final = "torchvision"


class Statistics(enum.StrEnum):
    """Where batch norms take their statistics from."""

    batch = "batch"
    recalibrated = "recalibrated"


Data = Annotated[
    str,
    typer.Option(metavar="NAME", help="Image data: digits, cifar10, a torchvision.datasets class, or a folder."),
]
DataFolder = Annotated[Path, typer.Option(metavar="DIR", help="Where the files of torchvision's image data lie.")]
ImageSize = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="Height and width of the images, if not those of the data.")
]


def evaluate(
    ghn: Annotated[
        str, typer.Argument(metavar="GHN", help="A file, a folder, a published name, user/repository, or digits.")
    ],
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A split of DeepNets-1M; repeatable. By default test, wide, deep, dense and "
                     "bnfree."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="ARCH", help="A torchvision network, or all of them; repeatable."),
    ] = None,
    images: Data = "digits",
    data: DataFolder = Path("data"),
    image_size: ImageSize = None,
    width: Annotated[int, typer.Option(min=8, metavar="N", help="Width of the networks of splits.")] = 32,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many networks of each split; all by default.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="WHAT", help="Also measure networks as initialised (random), after N epochs of SGD from "
                     "there (sgd:N), or from the prediction (finetuned:N); repeatable."),
    ] = None,
    statistics: Annotated[
        Statistics, typer.Option(help="Of batch norms: of each batch, as published, or recalibrated.")
    ] = Statistics.batch,
    noise: Annotated[float, typer.Option(min=0, metavar="STD", help="Gaussian noise on pixels from 0 to 1.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to save the results, as .json or .csv.")
    ] = None,
    seed: Seed = 0,
    other_classes: Annotated[
        bool, typer.Option("--other-classes", help="Accept a GHN for another number of classes.")
    ] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="Where to compute, such as cuda or cuda:1.")] = "cpu",
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="Processes that read images.")] = 0,
) -> None:  # fmt: skip
    """Measures the accuracy of networks whose parameters a GHN predicts."""
    if out is not None:
        check_output(out, [".json", ".csv"], "results")
    check_splits(*(split or ()))
    methods = [_method(name) for name in dict.fromkeys(["predicted", *(compare or ())])]
    check_device(device)
    with status("Loading"):
        from ..evaluation.evaluate import evaluate as run
        from ..images import ImagesError, load_images
        from ..models.ghn import GHN
        from ..models.hub import resolve
        from ..models.keys import CheckpointError

    with user_errors(ValueError, ImportError, ImagesError, CheckpointError):
        pictures = load_images(images, data, image_size=image_size)
        model = GHN.from_pretrained(resolve(ghn)).to(device)
        groups = _groups(split, network, pictures, width, count)
        found: dict[str, dict[str, Report]] = {}
        total = len(methods) * sum(map(len, groups.values()))
        with bar(total) as note:
            for group, subjects in groups.items():
                found[group] = {
                    method.name: run(
                        model if method.predicted else None, subjects, pictures, statistics=statistics.value,
                        noise=noise, seed=seed, device=device, workers=workers, training=method.training(seed),
                        other_classes=other_classes, progress=note,
                    )
                    for method in methods
                }  # fmt: skip
    _show(ghn, pictures, found)
    if _NETWORKS in found:
        _show_norms(ghn, found[_NETWORKS]["predicted"])
    if out is not None:
        with user_errors(OSError):
            _save(out, found)
        make_console().print(f"saved {out}", soft_wrap=True, markup=False)


class _Method(NamedTuple):
    """Where the parameters of networks come from, and for how many epochs they are trained after that."""

    name: str
    predicted: bool
    epochs: int

    def training(self, seed: int) -> FitConfig | None:
        from ..finetuning.config import FitConfig

        return FitConfig(epochs=self.epochs, seed=seed) if self.epochs else None


def _method(name: str) -> _Method:
    if name in ("predicted", "random"):
        return _Method(name, name == "predicted", 0)
    kind, _, epochs = name.partition(":")
    if kind not in ("sgd", "finetuned") or not epochs.isdecimal() or not int(epochs):
        fail(f"--compare expected random, sgd:N or finetuned:N with N epochs, got {name!r}")
    return _Method(name, kind == "finetuned", int(epochs))


def _groups(
    splits: Sequence[str] | None, networks: Sequence[str] | None, images: Images, width: int, count: int | None
) -> dict[str, list[Subject]]:
    """The networks to measure, by split."""
    from ..deepnets.dataset import DeepNets
    from ..evaluation.subjects import deepnets_subjects, torchvision_subjects
    from ..vision import check_name

    found = {}
    for name in splits or (() if networks else _SPLITS):
        split = DeepNets(name, num_classes=images.num_classes, image_size=images.image_size, width=width)
        found[name] = deepnets_subjects(split[: min(count or len(split), len(split))])
    if networks:
        named = [name for name in networks if name != "all"]
        for name in named:
            check_name(name)
        found[_NETWORKS] = torchvision_subjects(
            None if "all" in networks else named, images.num_classes, images.image_size
        )
    return found


@contextmanager
def bar(total: int, what: str = "Evaluating") -> Iterator[Callable[[Any], None]]:
    """A progress bar over networks."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda _: progress.update(task, advance=1)


def _show(ghn: str, images: Images, found: dict[str, dict[str, Report]]) -> None:
    from rich.text import Text

    console = make_console()
    console.print(Text(f"{ghn} on {len(images.test):,} test images of {images.name}", style="bold"))
    table = make_table("networks", "parameters", "number", "that ran", "top-1", "± std", "top-5", "± std")
    table.columns[1].justify = "left"
    for group, reports in found.items():
        for place, (method, report) in enumerate(reports.items()):
            means = [value for one in ("top1", "top5") for value in (report.mean(one), report.std(one))]
            figures = ["–" if math.isnan(value) else f"{value:.2%}" for value in means]
            head = (group if place == 0 else "", method, f"{len(report.rows):,}", f"{report.coverage:.1%}")
            table.add_row(*head, *figures, end_section=place == len(reports) - 1)
    console.print(table)
    for group, reports in found.items():
        for method, report in reports.items():
            for name, failure in report.failures.items():
                console.print(Text(f"failed: {group}, {method}, {name}: {failure}", style="red"), soft_wrap=True)
    if _NETWORKS in found:
        _show_singles(found[_NETWORKS])


def _show_singles(reports: dict[str, Report]) -> None:
    """The accuracy of each network of torchvision."""
    table = make_table("network", *reports)
    for rows in zip(*(report.rows for report in reports.values()), strict=True):
        table.add_row(rows[0].name, *("–" if row.top1 is None else f"{row.top1:.2%}" for row in rows))
    make_console().print(table)


def _show_norms(ghn: str, report: Report) -> None:
    """Whether total norms are those that are published for this GHN, where there are some."""
    try:
        errors = report.norm_errors(Path(ghn).stem)
    except ValueError:  # none are published
        return
    lines = [f"{name} {found:.3f}, published {published:.3f}" for name, (found, published) in errors.items()]
    make_console().print("norms: " + ("; ".join(lines) or "as published"), soft_wrap=True, markup=False)


def _save(out: Path, found: dict[str, dict[str, Report]]) -> None:
    import csv

    from ..files import replacing

    with replacing(out) as unfinished, open(unfinished, "w", encoding="utf-8", newline="") as stream:
        if out.suffix == ".json":
            plain = {group: {name: one.to_dict() for name, one in reports.items()} for group, reports in found.items()}
            stream.write(json.dumps(plain, indent=2, allow_nan=False) + "\n")
            return
        rows: list[dict[str, Any]] = []
        for group, reports in found.items():
            for method, report in reports.items():
                rows += [{"networks": group, "method": method, **vars(row)} for row in report.rows]
        writer = csv.DictWriter(stream, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
