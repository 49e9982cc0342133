"""Pictures of the statistics of splits, with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import replacing
from .statistics import Measured, operation_shares

_PANELS = (("nodes", False), ("parameters", True), ("depth", False))


def plot_statistics(measured: Mapping[str, Sequence[Measured]], path: str | os.PathLike[str]) -> None:
    """Draws nodes, parameters and depth of each split as box plots, and the shares of its operations.

    Boxes span the middle half of the architectures, whiskers all but the outermost 5 % on each side.

    Args:
        measured: For each split its measured architectures, one at least.
        path: The picture, of any type that matplotlib writes.

    Raises:
        ImportError: If matplotlib is not installed.
        OSError: If it cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib; install it with: pip install "ghn_pyg[plot]"') from error
    figure = Figure(figsize=(13, 3.2 + 0.32 * len(measured)), layout="constrained")
    panels = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.5), sharey=True)
    for panel, (name, logarithmic) in zip(panels, _PANELS, strict=False):
        _boxes(panel, measured, name, logarithmic)
    panels[0].set_yticks(range(len(measured)), list(measured))
    panels[0].invert_yaxis()
    _operations(panels[-1], measured)
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
    from matplotlib import colormaps

    colors = colormaps["tab20"].colors  # type: ignore[attr-defined]
    shares = [operation_shares(found) for found in measured.values()]
    left = [0.0] * len(shares)
    for color, name in zip(colors, shares[0], strict=False):
        widths = [100 * share[name] for share in shares]
        panel.barh(range(len(shares)), widths, left=left, color=color, label=name, height=0.7)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    panel.set_xlabel("operations, %")
    panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
