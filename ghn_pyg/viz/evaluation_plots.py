"""Pictures of how well networks do, with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Images
from ..utils.atomic_files import replacing
from ..utils.optional import require

_RIGHT, _WRONG = "#1a7f37", "#cf222e"


def plot_choices(
    accuracies: Mapping[str, float], choices: Mapping[str, Tensor], images: Images, positions: Sequence[int],
    path: str | os.PathLike[str],
) -> None:  # fmt: skip
    """Draws accuracies as bars, and a few test images with the class that each network chooses, red if it is wrong.

    Args:
        accuracies: Top-1 accuracy of each network, from 0 to 1.
        choices: What each network chooses for the images, of shape (n,).
        images: The image data.
        positions: Which n test images.
        path: The picture, of any type that matplotlib writes.

    Raises:
        ImportError: If matplotlib is not installed.
        OSError: If it cannot be written.
    """
    matplotlib = require("matplotlib.figure", "plot", "pictures")
    figure = matplotlib.Figure(figsize=(10, 2.2 + 0.7 * len(accuracies)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(0.9 + 0.4 * len(accuracies), 0.9 + 0.3 * len(choices)))
    top, bottom = parts
    _bars(top.subplots(), accuracies, images)
    _grid(bottom.subplots(1 + len(choices), len(positions), height_ratios=(2, *[1] * len(choices))), choices,
          *images.test.batch(positions))  # fmt: skip
    path = Path(path)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix.removeprefix("."), dpi=150)


def _bars(panel: Any, accuracies: Mapping[str, float], images: Images) -> None:
    bars = panel.barh([*accuracies], [100 * value for value in accuracies.values()], color="#9ec5e8", height=0.6)
    panel.bar_label(bars, [f"{value:.1%}" for value in accuracies.values()], padding=4)
    panel.axvline(100 / images.num_classes, color="grey", linestyle=":")
    panel.set(xlim=(0, 108), xlabel=f"top-1 accuracy on {len(images.test):,} held-out images of {images.name}, % "
              f"(dotted: chance)")  # fmt: skip
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)


def _grid(panels: Any, choices: Mapping[str, Tensor], pictures: Tensor, labels: Tensor) -> None:
    for column, picture in zip(panels[0], pictures.mean(1).numpy(), strict=True):
        column.imshow(picture, cmap="gray_r")
        column.set_axis_off()
    for row, (name, chosen) in zip(panels[1:], choices.items(), strict=True):
        for panel, choice, label in zip(row, chosen.tolist(), labels.tolist(), strict=True):
            style = {"color": _RIGHT, "fontweight": "bold"} if choice == label else {"color": _WRONG}
            panel.text(0.5, 0.5, str(choice), ha="center", va="center", **style)
            panel.set_axis_off()
        row[0].text(-0.3, 0.5, name, ha="right", va="center")


@torch.inference_mode()
def choose(network: torch.nn.Module, images: Images, positions: Sequence[int], device: Any = None) -> Tensor:
    """The class that a network chooses for each of some test images, of shape (n,)."""
    return network(images.test.batch(positions)[0].to(device)).argmax(1).cpu()
