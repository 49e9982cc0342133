"""The command that ranks architectures without training them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from .console import (
    Device,
    Seed,
    check_device,
    check_output,
    check_splits,
    make_console,
    make_table,
    print_rows,
    status,
    user_errors,
)
from .eval import Data, DataFolder, Download, ImageSize, NumClasses, bar


def rank(
    ghn: Annotated[
        str, typer.Argument(metavar="GHN", help="A file, a folder, a published name, user/repository, or digits.")
    ],
    split: Annotated[str, typer.Option(metavar="NAME", help="The split of DeepNets-1M.")] = "search",
    count: Annotated[int, typer.Option(min=2, metavar="N", help="How many of its networks.")] = 100,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many to show.")] = 10,
    images: Data = "digits",
    data: DataFolder = Path("data"),
    download: Download = False,
    image_size: ImageSize = None,
    num_classes: NumClasses = None,
    width: Annotated[int, typer.Option(min=8, metavar="N", help="Width of the networks.")] = 32,
    check: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also train all of them by SGD for N epochs, and compare.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to save the ranking, as .json or .csv.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Ranks architectures by their accuracy with predicted parameters, for architecture search."""
    if out is not None:
        check_output(out, [".json", ".csv"], "a ranking")
    check_splits(split)
    check_device(device)
    with status("Loading"):
        from ..data import ImagesError, load_images
        from ..evaluation.evaluate import evaluate
        from ..evaluation.ranking import agreement, check_scipy, ranked
        from ..evaluation.report import Report
        from ..evaluation.subjects import deepnets_subjects
        from ..families.deepnets.dataset import DeepNets
        from ..finetuning.config import FitConfig
        from ..finetuning.train_network import check_fit
        from ..models.checkpoints.key_names import CheckpointError
        from ..models.ghn import GHN
    with user_errors(ValueError, ImportError, ImagesError, CheckpointError, OSError):
        if check:
            check_scipy()
        model = GHN.from_pretrained(ghn).to(device)
        pictures = load_images(images, data, image_size=image_size, num_classes=num_classes, download=download)
        training = FitConfig(epochs=check, seed=seed) if check else None
        if training is not None:
            check_fit(pictures, training)
        networks = DeepNets(split, num_classes=pictures.num_classes, image_size=pictures.image_size, width=width)
        subjects = deepnets_subjects(networks[: min(count, len(networks))])
        with bar(len(subjects) * (2 if check else 1), "Ranking") as note:
            report = evaluate(model, subjects, pictures, seed=seed, device=device, progress=note)
            trained = None
            if training is not None:
                trained = evaluate(None, subjects, pictures, seed=seed, device=device, training=training, progress=note)
        rows = ranked(report)
        tau = math.nan if trained is None else agreement(report, trained)
    reached = {} if trained is None else {row.name: row.top1 for row in trained.successes}
    table = make_table("network", "nodes", "parameters", "top-1", *(["trained"] if check else []))
    for row in rows[:top]:
        figures = [f"{row.nodes:,}", f"{row.parameters:,}", f"{row.top1:.2%}"]
        value = reached.get(row.name)
        table.add_row(row.name, *figures, *(["–" if value is None else f"{value:.2%}"] if check else []))
    lines = [("ran", f"{len(rows)} of {len(subjects)}")]
    if trained is not None:
        lines.append(("Kendall's τ", "–" if math.isnan(tau) else f"{tau:.2f} with {check} epochs of SGD"))
    print_rows(f"{split} ranked by {ghn}", lines, table)
    for name, failure in report.failures.items():
        make_console().print(f"failed: {name}: {failure}", style="red", soft_wrap=True, markup=False)
    if out is not None:
        with user_errors(OSError):
            Report([*rows, *(row for row in report.rows if row.failure is not None)], report.settings).save(out)
        make_console().print(f"saved {out}", soft_wrap=True, markup=False)
