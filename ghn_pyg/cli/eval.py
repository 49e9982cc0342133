"""``ghn-pyg eval``: measures the accuracy of predicted, random and trained parameters."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from . import options
from .files import load_ghn, save_csv, save_text, saved_before
from .options import argument, flag, option
from .terminal import (
    fail,
    make_console,
    make_table,
    print_failures,
    print_line,
    progress_bar,
    status,
    user_errors,
)
from .trace_network import describe

if TYPE_CHECKING:
    from ..data.images import Images
    from ..evaluation.report import Report
    from ..evaluation.subjects import Subject

    Reports = dict[tuple[str, str], Report]  # by group of networks and method

_DEFAULT_SPLITS: Final = ("test", "wide", "deep", "dense", "bnfree")
_TORCHVISION: Final = "torchvision"
_BY_NAME: Final = (_TORCHVISION, "networks")
_PUBLISHED: Final = "published"


class Statistics(enum.StrEnum):
    """Statistics that batch norms use."""

    recalibrated = "recalibrated"
    batch = "batch"
    running = "running"


def evaluate(
    ghn: Annotated[str, argument("GHN", f"{options.GHN_FORMS} Or a checkpoint of a run.")] = "",
    split: Annotated[
        list[str] | None,
        option("NAME", f"A split of DeepNets-1M; repeatable. Default: {', '.join(_DEFAULT_SPLITS)}."),
    ] = None,
    network: Annotated[
        list[str] | None, option("ARCH", f"{options.SUBJECTS}; or all of torchvision; repeatable.")
    ] = None,
    weights: Annotated[
        Path | None, option("FILE.safetensors", "Measure a network with these weights, as of `ghn-pyg finetune --out`.")
    ] = None,
    images: options.ImageData = None,
    data: options.DataFolder = Path("data"),
    download: options.Download = False,
    skip_damaged: options.SkipDamaged = False,
    image_size: options.ImageSize = None,
    num_classes: options.NumClasses = None,
    width: options.Width = None,
    count: Annotated[int | None, option("N", "Number of networks of each split; all by default.", min=1)] = None,
    compare: Annotated[
        list[str] | None,
        option(
            "WHAT",
            "Also measure initial parameters (random), or N epochs of SGD from these (sgd:N) or from the "
            "prediction (finetuned:N); repeatable.",
        ),
    ] = None,
    train_batch_size: Annotated[int, option("N", "Images in a batch of --compare sgd:N and finetuned:N.", min=2)] = 64,
    learning_rate: Annotated[
        float, option("RATE", "Peak learning rate of --compare sgd:N and finetuned:N.", min=0)
    ] = 0.025,
    statistics: Annotated[
        Statistics,
        typer.Option(
            help="Statistics of batch norms: recalibrated on training images; of each batch of test images, as "
            "published, which peeks at the batch; or running averages of a trained network."
        ),
    ] = Statistics.recalibrated,
    batch_size: Annotated[int, option("N", "Test images in a batch.", min=1)] = 64,
    held_out: Annotated[
        bool, flag("--held-out", "Measure on the training images that the GHN has not seen, to choose between GHNs.")
    ] = False,
    noise: Annotated[str, option("STD", "Standard deviation of noise on pixels from 0 to 1, or published.")] = "0",
    out: options.ReportFile = None,
    seed: options.Seed = 0,
    other_classes: Annotated[bool, flag("--other-classes", "Accept a GHN for another number of classes.")] = False,
    device: options.Device = "cpu",
    workers: options.Workers = 0,
) -> None:
    """Measure the accuracy of networks with predicted parameters, or of a trained network."""
    options.check_single_process()
    options.check_file(out, options.REPORT_SUFFIXES)
    options.check_splits(*(split or ()))
    if not re.fullmatch(rf"{_PUBLISHED}|\d*\.?\d+(e-?\d+)?", noise):
        fail(f"--noise expected a number of at least 0, or {_PUBLISHED}, got {noise!r}")
    if weights is not None:
        if ghn or split or compare or len(network or ()) != 1:
            fail("--weights needs one --network, and neither a GHN nor --split nor --compare")
        methods = {"trained": (False, 0)}
    elif ghn:
        methods = {name: _parse_method(name) for name in ("predicted", *(compare or ()))}
    else:
        fail("expected a GHN, such as digits, or --weights with the file of a trained network")
    options.check_device(device)
    with status("Loading"):
        from ..data.load import load_images
        from ..evaluation.accuracy import published_noise
        from ..evaluation.evaluate import evaluate as measure
        from ..evaluation.subjects import trained_subject
        from ..finetuning.config import FitConfig
        from ..finetuning.saved_network import read_info
        from ..finetuning.train_network import check_fit

    model = load_ghn(ghn, device) if ghn else None
    trained_for = None if model is None else model.config.trained_for
    width = width or (trained_for.evaluation_width if trained_for else 32)
    source = ghn or str(weights)
    info = None if weights is None else read_info(weights)
    normalization = None
    if info is not None:  # what the network was trained on
        images, image_size, normalization = images or info.data, image_size or info.image_size, (info.mean, info.std)
    with user_errors(ValueError, ImportError, fields={"batch_size": "--train-batch-size"}):
        dataset = load_images(
            images, data, image_size=image_size, num_classes=num_classes, download=download,
            skip_damaged=skip_damaged, trained_for=trained_for, normalization=normalization,
        )  # fmt: skip
        if held_out:
            if trained_for is None or not trained_for.held_out:
                fail("--held-out expected a GHN that is not trained on all training images (held_out)")
            dataset = dataset.hold_out(trained_for.held_out)
        plan = FitConfig(batch_size=train_batch_size, learning_rate=learning_rate, seed=seed)
        trainings = {name: plan.replace(epochs=epochs) for name, (_, epochs) in methods.items() if epochs}
        for training in trainings.values():  # before networks that may take hours
            check_fit(dataset, training)
        std = published_noise(dataset) if noise == _PUBLISHED else float(noise)
        if weights is None:
            groups = _find_networks(split, network, dataset, width, count)
        else:
            sizes = (dataset.num_classes, dataset.image_size)
            auxiliary = info is not None and info.auxiliary
            groups = {_TORCHVISION: [trained_subject(name, weights, *sizes, auxiliary) for name in network or ()]}
        reports: Reports = {}
        with progress_bar(len(methods) * sum(map(len, groups.values())), "Evaluating") as advance:
            for group, subjects in groups.items():
                for name, (predicted, _) in methods.items():
                    report = measure(
                        model if predicted else None,
                        subjects,
                        dataset,
                        statistics=statistics.value,
                        batch_size=batch_size,
                        noise=std,
                        seed=seed,
                        device=device,
                        workers=workers,
                        training=trainings.get(name),
                        other_classes=other_classes,
                        progress=advance,
                    )
                    settings = {"source": source, "width": None if group in _BY_NAME else width}
                    settings |= {} if weights is None else {"parameters": "trained"}
                    reports[group, name] = dataclasses.replace(report, settings={**report.settings, **settings})
    kind = "held-out" if held_out else "test"
    with saved_before(out, lambda path: _save(path, reports)):
        _print_reports(f"{source} on {len(dataset.test):,} {kind} images of {dataset.name}", reports)
        if _TORCHVISION in groups and ghn:
            _print_norms(ghn, dataset, reports[_TORCHVISION, "predicted"])
    if not any(report.successes for report in reports.values()):
        raise typer.Exit(2)


def _parse_method(name: str) -> tuple[bool, int]:
    """Whether parameters are predicted, and for how many epochs they are trained after that."""
    if name in ("predicted", "random"):
        return name == "predicted", 0
    kind, _, epochs = name.partition(":")
    if kind not in ("sgd", "finetuned") or not epochs.isdecimal() or not int(epochs):
        fail(f"--compare expected random, sgd:N or finetuned:N with N epochs, got {name!r}")
    return kind == "finetuned", int(epochs)


def _find_networks(
    splits: Sequence[str] | None, networks: Sequence[str] | None, images: Images, width: int, count: int | None
) -> dict[str, list[Subject]]:
    """The networks to measure, by split."""
    from ..evaluation.subjects import deepnets_subjects, named_subject, torchvision_subjects
    from ..families.deepnets.dataset import DeepNets
    from ..zoo.torchvision_models import classification_models

    groups = {}
    for name in splits or (() if networks else _DEFAULT_SPLITS):
        split = DeepNets(name, num_classes=images.num_classes, image_size=images.image_size, width=width)
        groups[name] = deepnets_subjects(split[: min(count or len(split), len(split))])
    if networks:
        sizes = (images.num_classes, images.image_size)
        if "all" in networks:
            groups[_TORCHVISION] = torchvision_subjects(None, *sizes)
        else:
            group = _BY_NAME[not set(networks) <= set(classification_models())]
            groups[group] = [named_subject(name, *sizes, width) for name in networks]
    return groups


def _print_reports(title: str, reports: Reports) -> None:
    from rich.text import Text

    console = make_console()
    console.print(Text(title, style="bold"))
    table = make_table("networks", "parameters", "number", "that ran", "top-1", "± std", "top-5", "± std")
    table.columns[1].justify = "left"
    failures: dict[str, str] = {}
    last_group = ""
    for (group, method), report in reports.items():
        if group != last_group:
            table.add_section()
        values = (report.mean("top1"), report.std("top1"), report.mean("top5"), report.std("top5"))
        figures = ["–" if math.isnan(value) else f"{value:.2%}" for value in values]
        head = ("" if group == last_group else group, method, f"{len(report.rows):,}", f"{report.coverage:.1%}")
        table.add_row(*head, *figures)
        last_group = group
        failures |= {f"{group}, {method}, {name}": describe(reason, "") for name, reason in report.failures.items()}
    console.print(table)
    print_failures(failures)
    if by_method := {method: report for (group, method), report in reports.items() if group in _BY_NAME}:
        table = make_table("network", *by_method)
        for rows in zip(*(report.rows for report in by_method.values()), strict=True):
            table.add_row(rows[0].name, *("–" if row.top1 is None else f"{row.top1:.2%}" for row in rows))
        console.print(table)


def _print_norms(ghn: str, images: Images, report: Report) -> None:
    """Compares total norms with those published for this GHN, which are of networks for ImageNet."""
    from ..families.deepnets.network_plan import LARGE_IMAGES

    if images.num_classes != 1000 or images.image_size < LARGE_IMAGES:
        return
    try:
        errors = report.norm_errors(Path(ghn).stem)
    except ValueError:  # none are published
        return
    lines = [f"{name} {norm:.3f}, published {published:.3f}" for name, (norm, published) in errors.items()]
    print_line("norms: " + ("; ".join(lines) or "as published"))


def _save(out: Path, reports: Reports) -> None:
    if out.suffix == ".json":
        content: dict[str, dict[str, Any]] = {}
        for (group, method), report in reports.items():
            content.setdefault(group, {})[method] = report.to_dict()
        save_text(out, json.dumps(content, indent=2, allow_nan=False) + "\n")
    else:
        heads = {key: {"networks": key[0], "method": key[1]} for key in reports}
        save_csv(out, [heads[key] | vars(row) for key, report in reports.items() for row in report.rows])
