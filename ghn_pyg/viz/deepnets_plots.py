"""Draws the statistics of splits of DeepNets-1M, with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..families.deepnets.statistics import Measured, operation_shares
from ..utils.atomic_files import replacing
from ..utils.optional import require


def plot_statistics(measured: Mapping[str, Sequence[Measured]], path: str | os.PathLike[str]) -> None:
    """Draws nodes, parameters and depth of each split as box plots, and the shares of its operations as a table.

    Boxes show the middle half of the architectures, and whiskers all but the outermost 5 % on each side.

    Args:
        measured: The measured architectures of each split, at least one each.
        path: The picture, of any type that matplotlib writes.

    Raises:
        ImportError: If matplotlib is not installed.
        OSError: If the picture cannot be written.
    """
    matplotlib = require("matplotlib.figure", "plot", "pictures")
    figure = matplotlib.Figure(figsize=(15, 3.2 + 0.32 * len(measured)), layout="constrained")
    legend = "median, middle half, and all but the outermost 5 % on each side"
    figure.suptitle(f"DeepNets-1M by split (number of architectures): {legend}", fontsize=10)
    *panels, table = figure.subplots(1, 4, width_ratios=(1, 1, 1, 2), sharey=True)
    positions = range(len(measured))
    for panel, name in zip(panels, ("nodes", "parameters", "depth"), strict=True):
        values = [[getattr(each, name) for each in architectures] for architectures in measured.values()]
        style = {"orientation": "horizontal", "whis": (5, 95), "showfliers": False, "manage_ticks": False}
        panel.boxplot(values, positions=positions, **style)
        panel.set_xlabel(name)
    panels[1].set_xscale("log")
    panels[0].set_yticks(positions, [f"{split} ({len(each):,})" for split, each in measured.items()])
    panels[0].set_ylim(len(measured) - 0.5, -0.5)
    _draw_operations(table, [operation_shares(architectures) for architectures in measured.values()])
    path = Path(path)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix.removeprefix("."), dpi=150)


def _draw_operations(panel: Any, shares: Sequence[Mapping[str, float]]) -> None:
    """Draws a table, because fifteen colours are hard to tell apart. Large shares have dark cells."""
    table = [[100 * share for share in row.values()] for row in shares]
    largest = max(map(max, table))
    panel.imshow(table, cmap="Blues", vmin=0, vmax=largest, aspect="auto")
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            color = "white" if value > 0.6 * largest else "black"
            panel.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=7)
    panel.set_xticks(range(len(shares[0])), list(shares[0]), rotation=90, fontsize=7)
    panel.set_xlabel("operations, %")
