"""How soon does meta-training learn, and what makes the difference? ``python -m benchmarks.learning``

Each recipe trains for the same time. The first has the settings of the published trainer's run: digits of 32×32 pixels,
networks of widths 8 and 16, 4 networks and 32 images in a step, d = C = 32. The others change one setting, for example
the seed, or two; the last one has all published settings. The result is the top-1 accuracy of unseen test architectures
with predicted parameters, and the learning curve.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ghn_pyg import GHN
from ghn_pyg.data.images import Images
from ghn_pyg.evaluation import deepnets_subjects, evaluate
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.training.config import TrainConfig, load_config
from ghn_pyg.training.image_batches import run_images

from .harness import Run, arguments, number, table
from .meta_training import changed, train

SETTING: Final = ["image_size=32", "batch_size=32", "ghn.hidden_channels=32", "ghn.max_channels=32", "ghn.heads=4",
                  "widths={widths: [8, 16]}", "learning_rate=1e-3", "warmup_epochs=0", "curriculum=1.0"]  # fmt: skip
TINY: Final = ["image_size=8", "batch_size=256", "ghn.hidden_channels=8", "ghn.max_channels=8", "ghn.heads=2",
               "widths={widths: [8], hidden: [16]}", "meta_batch=1", "warmup_epochs=0"]  # fmt: skip
PUBLISHED: Final[dict[str, Any]] = {
    "curriculum": 0.0, "calibrate": False, "balance": False, "ema": 0.0, "learning_rate": 4e-4, "augment": True
}  # fmt: skip
RECIPES: Final[dict[str, dict[str, Any]]] = {
    "digits": {},
    "with another seed": {"seed": 1},
    "without growing networks": {"curriculum": 0.0},
    "without calibration": {"calibrate": False},
    "without balanced gradients": {"balance": False},
    "without averaging": {"ema": 0.0},
    "growing for half of the run": {"curriculum": 0.5},
    "a third of the learning rate": {"learning_rate": 1e-3 / 3},
    "three times the learning rate": {"learning_rate": 3e-3},
    "images of 16×16 pixels": {"image_size": 16},
    "images of 8×8 pixels": {"image_size": 8},
    "64 images": {"batch_size": 64},
    "16 images": {"batch_size": 16},
    "64 images of 16×16 pixels": {"image_size": 16, "batch_size": 64},
    "as published": PUBLISHED,
}
FIGURE: Final = "published trainer, 566 steps in 25 minutes on another machine with 2 cores: 18.7 % of 30 architectures"
_PROBED: Final = 20
_POINTS: Final = 25
_TESTED: Final = 30


def ranks(config: TrainConfig, quick: bool) -> int:
    """The number of processes: one for each core, at most one for each architecture; a quick run starts none."""
    return 0 if quick else min(os.cpu_count() or 1, config.meta_batch)


def lasting(config: TrainConfig, images: Images, seconds: float, quick: bool) -> TrainConfig:
    """The configuration with as many epochs as fit into the time, judged by steps with full-size networks."""
    with tempfile.TemporaryDirectory() as folder:
        steps = 2 if quick else _PROBED
        rows = train(changed(config, curriculum=0.0), Path(folder), ranks(config, quick), steps=steps)
    # Steps with growing networks take about two thirds of the time.
    step = statistics.fmean(row["seconds"] for row in rows[1:]) * (1 - config.curriculum / 3)
    steps_per_epoch = len(images.train) // config.batch_size
    return changed(config, epochs=max(1, round(seconds / step / steps_per_epoch)))


def curve(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Means of loss and accuracy over equal parts of the run."""
    points, elapsed = [], 0.0
    size = max(1, len(rows) // _POINTS)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        elapsed += sum(row["seconds"] for row in part)
        loss, top1 = (statistics.fmean(row[name] for row in part) for name in ("loss", "top1"))
        points.append({"step": part[-1]["step"] + 1, "minutes": elapsed / 60, "loss": loss, "top1": top1})
    return points


def learn(config: TrainConfig, seconds: float, quick: bool) -> dict[str, Any]:
    """Trains for about this time; returns the learning curve and the accuracy on test architectures."""
    images = run_images(config, config.augment)
    config = lasting(config, images, seconds, quick)
    with tempfile.TemporaryDirectory() as folder:
        rows = train(config, Path(folder), ranks(config, quick))
        ghn = GHN.from_pretrained(Path(folder, "run", "ghn"))
    width = config.widths.widths[0]
    split = DeepNets("test", num_classes=images.num_classes, image_size=images.image_size, width=width)
    report = evaluate(ghn, deepnets_subjects(split[: 2 if quick else _TESTED]), images)
    return {
        "config": config.to_dict(), "steps": len(rows), "minutes": sum(row["seconds"] for row in rows) / 60,
        "top1": report.mean("top1"), "top1_std": report.std("top1"), "curve": curve(rows),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, "learning")
    parser.add_argument("--minutes", type=float, default=25.0, help="for each recipe; 25 by default")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="all by default")
    options = parser.parse_args(argv)
    base = load_config("digits", TINY if options.quick else SETTING)
    run = Run("learning", options)
    results: dict[str, Any] = {}
    for name in options.recipes:
        config = changed(base, **RECIPES[name])
        results[name] = learn(config, 60 * options.minutes, options.quick)
        run.probe.sample()
        run.note(f"{name}: {results[name]['top1']:.1%} after {results[name]['minutes']:.1f} minutes")
        run.save({"recipes": results}, *_report(results))
    run.finish({"recipes": results}, *_report(results))
    return 0


def _report(results: dict[str, Any]) -> list[str]:
    lines = [
        [name, str(row["steps"]), number(row["minutes"]), f"{row['top1']:.1%}", f"{row['top1_std']:.1%}"]
        for name, row in results.items()
    ]
    head = ["recipe", "steps", "minutes", f"top-1 of {_TESTED} test architectures", "±"]
    return [table(head, lines), f"For comparison, {FIGURE}.", _curves(results)]


def _curves(results: dict[str, Any]) -> str:
    """Losses at fifths of each run."""
    lines = []
    for name, row in results.items():
        points = row["curve"]
        chosen = [points[min(len(points) - 1, len(points) * part // 5)] for part in range(1, 6)]
        lines.append([name, *(f"{point['loss']:.2f} ({point['minutes']:.0f} min)" for point in chosen)])
    return "## Training loss\n\n" + table(["recipe", "20 %", "40 %", "60 %", "80 %", "100 %"], lines)


if __name__ == "__main__":
    sys.exit(main())
