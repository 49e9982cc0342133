"""``ghn-pyg rank``: ranks architectures without training them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from . import options
from .files import load_ghn, saved_before
from .options import option
from .terminal import make_table, print_failures, print_rows, progress_bar, status, user_errors
from .trace_network import describe


def rank(
    ghn: options.GhnArgument,
    split: Annotated[str, option("NAME", "The split of DeepNets-1M.")] = "search",
    network: Annotated[list[str] | None, option("ARCH", f"Instead of a split: {options.SUBJECTS}; repeatable.")] = None,
    count: Annotated[int, option("N", "Number of architectures of the split to rank.", min=2)] = 100,
    top: Annotated[int, option("N", "Number of architectures to show.", min=1)] = 10,
    images: options.ImageData = None,
    data: options.DataFolder = Path("data"),
    download: options.Download = False,
    skip_damaged: options.SkipDamaged = False,
    image_size: options.ImageSize = None,
    num_classes: options.NumClasses = None,
    width: options.Width = None,
    check: Annotated[int, option("N", "Also train all architectures for N epochs of SGD, and compare.", min=0)] = 0,
    out: options.ReportFile = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
) -> None:
    """Rank architectures by their accuracy with predicted parameters, for architecture search."""
    options.check_single_process()
    options.check_file(out, options.REPORT_SUFFIXES)
    options.check_splits(split)
    options.check_device(device)
    with status("Loading"):
        from ..data.load import load_images
        from ..evaluation.evaluate import evaluate
        from ..evaluation.report import Report, agreement, ranked
        from ..evaluation.subjects import deepnets_subjects, named_subject
        from ..families.deepnets.dataset import DeepNets
        from ..finetuning.config import FitConfig
        from ..finetuning.train_network import check_fit
        from ..utils.optional import require
    with user_errors(ValueError, ImportError, OSError):
        if check:
            require("scipy.stats", "train", "rank correlations")
        model = load_ghn(ghn, device)
        trained_for = model.config.trained_for
        width = width or (trained_for.evaluation_width if trained_for else 32)
        dataset = load_images(
            images, data, image_size=image_size, num_classes=num_classes, download=download,
            skip_damaged=skip_damaged, trained_for=trained_for,
        )  # fmt: skip
        dataset.check_classes("the GHN", model.config.num_classes, "take one for these classes")
        few = max(2, min(64, len(dataset.train)))
        training = FitConfig(epochs=check, batch_size=few, seed=seed) if check else None
        if training is not None:
            check_fit(dataset, training)
        sizes: dict[str, Any] = {"num_classes": dataset.num_classes, "image_size": dataset.image_size, "width": width}
        if network:
            subjects = [named_subject(name, **sizes) for name in network]
        else:
            networks = DeepNets(split, **sizes)
            subjects = deepnets_subjects(networks[: min(count, len(networks))])
        trained, tau = None, math.nan
        with progress_bar(len(subjects) * (2 if check else 1), "Ranking") as advance:
            report = evaluate(model, subjects, dataset, seed=seed, device=device, progress=advance)
            if training is not None:
                trained = evaluate(
                    None, subjects, dataset, seed=seed, device=device, training=training, progress=advance
                )
                tau = agreement(report, trained)
    rows = ranked(report)
    trained_top1 = {} if trained is None else {row.name: f"{row.top1:.2%}" for row in trained.successes}
    table = make_table("network", "nodes", "parameters", "top-1", *(["trained"] if check else []))
    for row in rows[:top]:
        figures = [f"{row.nodes:,}", f"{row.parameters:,}", f"{row.top1:.2%}"]
        table.add_row(row.name, *figures, *([trained_top1.get(row.name, "–")] if check else []))
    lines = [("ran", f"{len(rows)} of {len(subjects)}")]
    if check:
        lines.append(("Kendall's τ", "–" if math.isnan(tau) else f"{tau:.2f} with {check} epochs of SGD"))
    ranking = Report([*rows, *(row for row in report.rows if row.failure is not None)], report.settings)
    with saved_before(out, ranking.save):
        print_rows(f"{split if not network else 'networks'} ranked by {ghn}", lines, table)
        print_failures({name: describe(reason, "") for name, reason in report.failures.items()})
