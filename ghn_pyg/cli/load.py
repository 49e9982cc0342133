"""Loads GHNs and image data, and saves tables, for several commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import status, user_errors

if TYPE_CHECKING:
    from ..models.ghn import GHN


def load_ghn(name: str, device: str = "cpu") -> GHN:
    """Loads a GHN, and downloads it if needed."""
    with status(f"Loading {name}"):
        from ..models.checkpoints.hub import resolve
        from ..models.checkpoints.key_names import CheckpointError
        from ..models.ghn import GHN

    with user_errors(CheckpointError):
        path = resolve(name)  # outside of the status, because a download shows its own progress
        with status(f"Loading {name}"):
            return GHN.from_pretrained(path).to(device)


def save_csv(path: Path, rows: Sequence[Mapping[str, Any]], fields: Iterable[str] = ()) -> None:
    """Saves rows as CSV; by default the fields are those of the first row."""
    import csv

    from ..utils.atomic_files import replacing

    with (
        user_errors(OSError),
        replacing(path) as unfinished,
        open(unfinished, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, [*(fields or rows[0])])
        writer.writeheader()
        writer.writerows(rows)
