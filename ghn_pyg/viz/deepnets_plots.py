"""Pictures of the statistics of splits, with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..families.deepnets import Measured, operation_shares
from ..utils.atomic_files import replacing
from ..utils.optional import require

_PANELS = (("nodes", False), ("parameters", True), ("depth", False))


def plot_statistics(measured: Mapping[str, Sequence[Measured]], path: str | os.PathLike[str]) -> None:
    """Draws nodes, parameters and depth of each split as box plots, and the shares of its operations as a table.

    Boxes span the middle half of the architectures, whiskers all but the outermost 5 % on each side.

    Args:
        measured: For each split its measured architectures, one at least.
        path: The picture, of any type that matplotlib writes.

    Raises:
        ImportError: If matplotlib is not installed.
        OSError: If it cannot be written.
    """
    matplotlib = require("matplotlib.figure", "plot", "pictures")
    figure = matplotlib.Figure(figsize=(15, 3.2 + 0.32 * len(measured)), layout="constrained")
    spread = "median, middle half, and all but the outermost 5 % on each side"
    figure.suptitle(f"DeepNets-1M by split (number of architectures): {spread}", fontsize=10)
    panels = figure.subplots(1, 4, width_ratios=(1, 1, 1, 2), sharey=True)
    for panel, (name, logarithmic) in zip(panels, _PANELS, strict=False):
        _boxes(panel, measured, name, logarithmic)
    _operations(panels[-1], measured)
    panels[0].set_yticks(range(len(measured)), [f"{split} ({len(found):,})" for split, found in measured.items()])
    panels[0].set_ylim(len(measured) - 0.5, -0.5)
    path = Path(path)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix.removeprefix("."), dpi=150)


def _boxes(panel: Any, measured: Mapping[str, Sequence[Measured]], name: str, logarithmic: bool) -> None:
    panel.boxplot(
        [[getattr(one, name) for one in found] for found in measured.values()],
        positions=range(len(measured)),
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        widths=0.6,
        manage_ticks=False,
        medianprops={"color": "black"},
        patch_artist=True,
        boxprops={"facecolor": "#9ec5e8"},
    )
    panel.set_xlabel(name)
    if logarithmic:
        panel.set_xscale("log")


def _operations(panel: Any, measured: Mapping[str, Sequence[Measured]]) -> None:
    """A table, as nobody can tell fifteen colours apart; the larger a share, the darker its field."""
    shares = [operation_shares(found) for found in measured.values()]
    table = [[100 * share for share in row.values()] for row in shares]
    largest = max(map(max, table))
    panel.imshow(table, cmap="Blues", vmin=0, vmax=largest, aspect="auto")
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            color = "white" if value > 0.6 * largest else "black"
            panel.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=7)
    panel.set_xticks(range(len(shares[0])), list(shares[0]), rotation=90, fontsize=7)
    panel.set_xlabel("operations, %")
