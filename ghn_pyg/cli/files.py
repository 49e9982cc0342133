"""Loads GHNs, and saves tables and tensors, for several commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..utils.atomic_files import replacing, write_csv, write_text
from .terminal import fail, print_line, status, user_errors

if TYPE_CHECKING:
    from ..models.ghn import GHN


def load_ghn(name: str, device: str = "cpu") -> GHN:
    """Loads a GHN, and downloads it if needed."""
    with status(f"Loading {name}"):
        from ..models.checkpoints.errors import CheckpointError
        from ..models.checkpoints.locate import resolve
        from ..models.ghn import GHN

    with user_errors(CheckpointError):
        path = resolve(name)  # outside of the status, because a download shows its own progress
        with status(f"Loading {name}"):
            return GHN.from_pretrained(path).to(device)


def save_csv(path: Path, rows: Sequence[Mapping[str, Any]], fields: Iterable[str] = ()) -> None:
    """Saves rows as CSV; by default the fields are those of the first row."""
    names = [*(fields or rows[0])]
    with user_errors(OSError):
        write_csv(path, [names, *([row.get(name) for name in names] for row in rows)])


def save_text(path: Path, text: str) -> None:
    """Saves a text."""
    with user_errors(OSError):
        write_text(path, text)


@contextlib.contextmanager
def saved_before(out: Path | None, save: Callable[[Path], None]) -> Iterator[None]:
    """Saves results before they are printed, if a file is wanted, and prints them even if they cannot be saved."""
    failure: OSError | typer.Exit | None = None
    if out is not None:
        try:
            save(out)
        except (OSError, typer.Exit) as error:
            failure = error
    yield
    if isinstance(failure, OSError):
        fail(str(failure))
    if failure is not None:  # its message was printed
        raise failure
    if out is not None:
        print_line(f"saved {out}")


@contextlib.contextmanager
def safetensors_file(path: Path) -> Iterator[Path]:
    """A temporary path that replaces ``path`` in the end. Errors of safetensors become OSErrors."""
    from safetensors import SafetensorError

    with status(f"Saving {path}"), replacing(path) as unfinished:
        try:
            yield unfinished
        except SafetensorError as error:
            raise OSError(str(error)) from error
