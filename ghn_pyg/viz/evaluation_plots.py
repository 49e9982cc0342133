"""Draws accuracies of networks and the classes that they choose, with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.images import Images
from ..utils.atomic_files import replacing
from ..utils.optional import require

_RIGHT, _WRONG = "#1a7f37", "#cf222e"


def plot_choices(
    accuracies: Mapping[str, float],
    choices: Mapping[str, Tensor],
    images: Images,
    positions: Sequence[int],
    path: str | os.PathLike[str],
) -> None:
    """Draws accuracies as bars, and below test images with the class that each network chooses, in red if wrong.

    Args:
        accuracies: Top-1 accuracy of each network, from 0 to 1.
        choices: The class that each network chooses for each image, of shape (n,).
        images: The image data.
        positions: Positions of the n images among the test images.
        path: The picture, of any type that matplotlib writes.

    Raises:
        ImportError: If matplotlib is not installed.
        OSError: If the picture cannot be written.
    """
    matplotlib = require("matplotlib.figure", "plot", "pictures")
    figure = matplotlib.Figure(figsize=(10, 2.2 + 0.7 * len(accuracies)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(0.9 + 0.4 * len(accuracies), 0.9 + 0.3 * len(choices)))
    _draw_bars(top.subplots(), accuracies, images)
    panels = bottom.subplots(1 + len(choices), len(positions), height_ratios=(2, *[1] * len(choices)))
    _draw_choices(panels, choices, *images.test.batch(positions))
    path = Path(path)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix.removeprefix("."), dpi=150)


def _draw_bars(panel: Any, accuracies: Mapping[str, float], images: Images) -> None:
    bars = panel.barh([*accuracies], [100 * value for value in accuracies.values()], color="#9ec5e8", height=0.6)
    panel.bar_label(bars, [f"{value:.1%}" for value in accuracies.values()], padding=4)
    panel.axvline(100 / images.num_classes, color="grey", linestyle=":")
    panel.set_xlabel(f"top-1 accuracy on {len(images.test):,} test images of {images.name}, % (dotted: chance)")
    panel.set_xlim(0, 108)
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)


def _draw_choices(panels: Any, choices: Mapping[str, Tensor], pictures: Tensor, labels: Tensor) -> None:
    for panel, picture in zip(panels[0], pictures.mean(1).numpy(), strict=True):
        panel.imshow(picture, cmap="gray_r")
        panel.set_axis_off()
    for row, (name, classes) in zip(panels[1:], choices.items(), strict=True):
        for panel, choice, label in zip(row, classes.tolist(), labels.tolist(), strict=True):
            style = {"color": _RIGHT, "fontweight": "bold"} if choice == label else {"color": _WRONG}
            panel.text(0.5, 0.5, str(choice), ha="center", va="center", **style)
            panel.set_axis_off()
        row[0].text(-0.3, 0.5, name, ha="right", va="center")
