"""``ghn-pyg train my-images``: a recipe for a folder of images, its cost, and the accuracies in the end."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .terminal import counted, fail, make_table, print_failures, print_rows, progress_bar

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ..data.images import Images
    from ..evaluation.subjects import Subject
    from ..models.ghn import GHN
    from ..training.config import TrainConfig

NAME: Final = "my-images"
RECIPE_FILE: Final = "recipe.yaml"
_MEASURED_EPOCHS: Final = 100


@dataclasses.dataclass
class FolderRecipe:
    """The recipe of a run on a folder of images.

    Args:
        out: The folder of the run.
        fields: The fields of its configuration. A new recipe has no ``epochs``.
    """

    out: Path
    fields: dict[str, Any]

    @classmethod
    def make(cls, folder: Path, out: Path, changes: Sequence[str]) -> FolderRecipe:
        """The recipe that an existing run has, else a new one for the images."""
        from ..training.folder_recipe import recipe_for_folder
        from ..utils.yaml_config import apply_changes, read_fields

        path = out / RECIPE_FILE
        if path.exists():
            fields = {**read_fields(path), "images": os.fspath(folder.expanduser().resolve())}
        else:
            given: dict[str, Any] = {}
            apply_changes(given, changes)
            fields = recipe_for_folder(folder, skip_damaged=given.get("skip_damaged") is True)
        apply_changes(fields, changes)
        return cls(out, fields)

    def config(self) -> TrainConfig:
        """The configuration; the length of a new run is not known yet."""
        from ..training.config import TrainConfig

        return TrainConfig.from_dict({"epochs": _MEASURED_EPOCHS, **self.fields})

    def start(self, images: Images, fabric: Fabric, minutes: float) -> TrainConfig:
        """Prints what a new run costs by ten measured steps, sets its length, and writes its recipe.

        All ranks call it before the run, and decide alike: nothing is written before they have measured.
        """
        from ..training.checkpoints import checkpoint_paths

        rows = []
        if not checkpoint_paths(self.out / "checkpoints"):
            rows = self._measure(images, fabric, minutes)
        path = self.out / RECIPE_FILE
        if fabric.is_global_zero:
            self._write(path)
            means, stds = (", ".join(f"{value:.3f}" for value in values) for values in (images.mean, images.std))
            rows = [
                ("images", f"{len(images.train):,} for training, {len(images.test):,} for the test"),
                ("classes", ", ".join(images.classes)),
                ("image size", f"{images.image_size} pixels; for another one, give -s image_size=N"),
                ("normalisation", f"mean {means}; standard deviation {stds}"),
                ("recipe", f"{path}, to edit and to repeat"),
                *rows,
            ]
            print_rows(f"{NAME}: {images.name}", rows)
        return self.config()

    def _measure(self, images: Images, fabric: Fabric, minutes: float) -> list[tuple[str, str]]:
        from ..training.cost import measure_cost

        config = self.config()
        cost = measure_cost(config, images, fabric)
        if "epochs" not in self.fields:
            self.fields["epochs"] = max(1, round(config.epochs * minutes / cost.minutes))
            cost = dataclasses.replace(cost, steps=cost.steps * self.fields["epochs"] // config.epochs)
        processes = f" in all {fabric.world_size} processes" if fabric.world_size > 1 else ""
        step = f"{counted(config.meta_batch, 'network')} on {counted(config.batch_size, 'image')}"
        return [
            ("steps", f"{cost.steps:,}, each of {step}"),
            ("time", f"{cost.minutes:,.1f} min: ten measured steps say {cost.seconds:.2f} s for one"),
            ("memory", f"{cost.memory / 1e9:.1f} GB{processes}"),
        ]

    def _write(self, path: Path) -> None:
        from ..training.folder_recipe import write_recipe

        if not path.exists():
            self.out.mkdir(parents=True, exist_ok=True)
            comment = f"Made by `ghn-pyg train {NAME}`. Edit it, and repeat: ghn-pyg train THIS_FILE --out DIR"
            write_recipe(path, self.fields, comment)


def print_accuracies(ghn: GHN, images: Images, networks: Sequence[Subject], unseen: int, workers: int) -> None:
    """Prints the accuracies of unseen architectures and of networks by name, on the test images."""
    from ..evaluation.evaluate import evaluate
    from ..evaluation.subjects import deepnets_subjects
    from ..families.deepnets.dataset import DeepNets

    trained_for = ghn.config.trained_for
    width = trained_for.evaluation_width if trained_for else 32
    split = DeepNets("test", num_classes=images.num_classes, image_size=images.image_size, width=width)
    groups = {counted(unseen, "unseen architecture"): deepnets_subjects(split[:unseen])} if unseen else {}
    groups |= {subject.name: [subject] for subject in networks}
    table = make_table("networks", "predicted", "random")
    failures: dict[str, str] = {}
    with progress_bar(2 * sum(map(len, groups.values())), "Measuring") as advance:
        for name, subjects in groups.items():
            reports = [evaluate(model, subjects, images, workers=workers, progress=advance) for model in (ghn, None)]
            table.add_row(name, *("–" if not report.successes else f"{report.mean('top1'):.1%}" for report in reports))
            failures |= reports[0].failures
    print_rows(f"top-1 on {len(images.test):,} test images of {images.name}, no network is trained", [], table)
    print_failures(failures)


def named_networks(names: Sequence[str], images: Images) -> list[Subject]:
    """The networks of ``--networks``, where each value may be a list with commas."""
    from ..evaluation.subjects import named_subject

    return [
        named_subject(name.strip(), images.num_classes, images.image_size)
        for value in names for name in value.split(",") if name.strip()
    ]  # fmt: skip


def count_processes(config: TrainConfig) -> int:
    """As many processes as cores, at most one for each network of a step, so that each has as many images."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(n for n in range(1, min(cores, config.meta_batch) + 1) if config.batch_size % n == 0)


def check_folder(folder: Path | None) -> Path:
    """The folder of images, which ``my-images`` needs."""
    if folder is None:
        fail(f"{NAME} expected the folder of images: ghn-pyg train {NAME} FOLDER")
    return folder
