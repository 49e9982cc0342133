"""The command that measures how well predicted parameters do."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from .console import (
    Device,
    Seed,
    check_device,
    check_output,
    check_splits,
    fail,
    make_console,
    make_table,
    status,
    user_errors,
)

if TYPE_CHECKING:
    from ..data import Images
    from ..evaluation.report import Report
    from ..evaluation.subjects import Subject
    from ..finetuning.config import FitConfig

_SPLITS: Final = ("test", "wide", "deep", "dense", "bnfree")
_NETWORKS: Final = "torchvision"
_PUBLISHED: Final = "published"
_PUBLISHED_CLASSES: Final = 1000


class Statistics(enum.StrEnum):
    """Where batch norms take their statistics from."""

    batch = "batch"
    recalibrated = "recalibrated"
    running = "running"


Data = Annotated[
    str,
    typer.Option(metavar="NAME", help="Image data: digits, cifar10, a torchvision.datasets class, or a folder."),
]
DataFolder = Annotated[Path, typer.Option(metavar="DIR", help="Where the files of torchvision's image data lie.")]
Download = Annotated[bool, typer.Option("--download", help="Download image data that is missing, if possible.")]
NumClasses = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Classes of image data that do not tell them."),
]
ImageSize = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="Height and width of the images, if not those of the data.")
]


def evaluate(
    ghn: Annotated[
        str,
        typer.Argument(metavar="[GHN]", help="A file, also a checkpoint of a run, a folder, a published name, "
                       "user/repository, or digits."),
    ] = "",
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A split of DeepNets-1M; repeatable. By default test, wide, deep, dense and "
                     "bnfree."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="ARCH", help="A torchvision network, or all of them; repeatable."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE.safetensors", help="Measure the network with these weights, as finetune --out "
                     "writes them, in place of predicted ones."),
    ] = None,
    images: Data = "digits",
    data: DataFolder = Path("data"),
    download: Download = False,
    image_size: ImageSize = None,
    num_classes: NumClasses = None,
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
        Statistics,
        typer.Option(help="Of batch norms: of each batch, as published, recalibrated, or a trained network's own."),
    ] = Statistics.batch,
    noise: Annotated[
        str,
        typer.Option(metavar="STD", help="Gaussian noise on pixels from 0 to 1, a number, or published: that of "
                     "published evaluations."),
    ] = "0",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to save the results, as .json or .csv.")
    ] = None,
    seed: Seed = 0,
    other_classes: Annotated[
        bool, typer.Option("--other-classes", help="Accept a GHN for another number of classes.")
    ] = False,
    device: Device = "cpu",
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="Processes that read images.")] = 0,
) -> None:  # fmt: skip
    """Measures the accuracy of networks whose parameters a GHN predicts, or of a trained one."""
    if out is not None:
        check_output(out, [".json", ".csv"], "results")
    check_splits(*(split or ()))
    _check_noise(noise)
    if weights is not None:
        _check_trained(ghn, split, network, compare)
    elif not ghn:
        fail("which GHN predicts the parameters? Name one, such as digits, or a trained network's file by --weights")
    methods = [_method(name) for name in dict.fromkeys(["predicted", *(compare or ())])]
    if weights is not None:
        methods = [_Method("trained", predicted=False, epochs=0)]
    check_device(device)
    with status("Loading"):
        from ..data import ImagesError, load_images
        from ..evaluation.evaluate import evaluate as run
        from ..evaluation.evaluate import published_noise
        from ..evaluation.subjects import trained_subject
        from ..finetuning.train_network import check_fit
        from ..models.checkpoints.hub import resolve
        from ..models.checkpoints.key_names import CheckpointError
        from ..models.ghn import GHN

    with user_errors(ValueError, ImportError, ImagesError, CheckpointError):
        model = GHN.from_pretrained(resolve(ghn)).to(device) if ghn else None
        pictures = load_images(images, data, image_size=image_size, num_classes=num_classes, download=download)
        for method in methods:
            if (training := method.training(seed)) is not None:  # before the first network runs, for it may take hours
                check_fit(pictures, training)
        spread = published_noise(pictures) if noise == _PUBLISHED else float(noise)
        if weights is None:
            groups = _groups(split, network, pictures, width, count)
            if statistics is not Statistics.batch and set(groups) != {_NETWORKS}:
                fail("networks of DeepNets-1M keep no statistics in their batch norms; use --statistics batch")
        else:
            sizes = (pictures.num_classes, pictures.image_size)
            groups = {_NETWORKS: [trained_subject(name, weights, *sizes) for name in network or ()]}
        found: dict[str, dict[str, Report]] = {}
        total = len(methods) * sum(map(len, groups.values()))
        with bar(total) as note:
            for group, subjects in groups.items():
                found[group] = {}
                for method in methods:
                    report = run(
                        model if method.predicted else None, subjects, pictures, statistics=statistics.value,
                        noise=spread, seed=seed, device=device, workers=workers, training=method.training(seed),
                        other_classes=other_classes, progress=note,
                    )  # fmt: skip
                    about = {"source": ghn or str(weights), "width": None if group == _NETWORKS else width}
                    about |= {"parameters": "trained"} if weights is not None else {}
                    found[group][method.name] = dataclasses.replace(report, settings={**report.settings, **about})
    _show(ghn or str(weights), pictures, found)
    if _NETWORKS in found and ghn:
        _show_norms(ghn, pictures, found[_NETWORKS]["predicted"])
    if out is not None:
        with user_errors(OSError):
            _save(out, found)
        make_console().print(f"saved {out}", soft_wrap=True, markup=False)
    if not any(report.successes for reports in found.values() for report in reports.values()):
        raise typer.Exit(2)


class _Method(NamedTuple):
    """Where the parameters of networks come from, and for how many epochs they are trained after that."""

    name: str
    predicted: bool
    epochs: int

    def training(self, seed: int) -> FitConfig | None:
        from ..finetuning.config import FitConfig

        return FitConfig(epochs=self.epochs, seed=seed) if self.epochs else None


def _check_noise(noise: str) -> None:
    if noise == _PUBLISHED:
        return
    try:
        usable = 0 <= float(noise) < math.inf
    except ValueError:
        usable = False
    if not usable:
        fail(f"--noise expected a number of at least 0, or {_PUBLISHED}, got {noise!r}")


def _check_trained(
    ghn: str, splits: Sequence[str] | None, networks: Sequence[str] | None, compare: Sequence[str] | None
) -> None:
    if ghn or splits or compare or len(networks or ()) != 1:
        fail("--weights are those of one trained network: name it by --network, without a GHN, --split or --compare")


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
    from ..evaluation.subjects import deepnets_subjects, torchvision_subjects
    from ..families.deepnets.dataset import DeepNets
    from ..zoo.torchvision_models import check_name

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


def _show_norms(ghn: str, images: Images, report: Report) -> None:
    """Whether total norms are those that are published for this GHN, where there are some.

    They are of networks for ImageNet: with other classes, or in the version for small images, there are others.
    """
    from ..families.deepnets.layout import LARGE_IMAGES

    if images.num_classes != _PUBLISHED_CLASSES or images.image_size < LARGE_IMAGES:
        return
    try:
        errors = report.norm_errors(Path(ghn).stem)
    except ValueError:  # none are published
        return
    lines = [f"{name} {found:.3f}, published {published:.3f}" for name, (found, published) in errors.items()]
    make_console().print("norms: " + ("; ".join(lines) or "as published"), soft_wrap=True, markup=False)


def _save(out: Path, found: dict[str, dict[str, Report]]) -> None:
    import csv

    from ..utils.atomic_files import replacing

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
