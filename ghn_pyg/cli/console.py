"""What all commands share: output for people, and errors that they can mend."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from ..utils.suggest import choice

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Seed of everything that is drawn at random.")
]
# The option's name stands there because some versions of typer take a metavar that is like it for it.
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Where to compute, such as cpu, cuda, cuda:1 or mps.")
]


# Known here too, so that a mistake shows before torch is imported.
GRAPH_SUFFIXES: Final = (".graphml", ".json", ".svg")
SPLITS: Final = ("train", "val", "test", "wide", "deep", "dense", "bnfree", "search")


def check_splits(*splits: str) -> None:
    """Ends the command where there is no such split of DeepNets-1M."""
    for split in splits:
        if split not in SPLITS:
            fail(f"unknown split {split!r}{choice(split, SPLITS)}")


def check_folder(out: Path) -> None:
    """Finds before the work that a folder for a checkpoint cannot be made or written to."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        fail(f"cannot write a checkpoint into {out}: {there} is a file, expected the name of a folder")
    if not os.access(there, os.W_OK):
        fail(f"cannot write a checkpoint into {out}: the folder {there} is read-only")


def check_output(out: Path, suffixes: Sequence[str], what: str) -> None:
    """Finds before the work what would only show when it is written."""
    folder = out.parent
    if out.suffix not in suffixes:
        fail(f"cannot save {what} as {out}, expected a name that ends in {', '.join(suffixes)}")
    if not folder.is_dir():
        fail(f"cannot write {out}: there is no folder {folder}; make it first")
    if out.is_dir() or not os.access(folder, os.W_OK):
        fail(f"cannot write {out}: {'it is a folder' if out.is_dir() else f'the folder {folder} is read-only'}")


def check_device(device: str) -> None:
    """Ends the command where there is no such device, naming those that there are."""
    import torch

    found = ["cpu"]
    if (kind := torch.accelerator.current_accelerator(check_available=True)) is not None:
        found += [kind.type, *(f"{kind.type}:{number}" for number in range(torch.accelerator.device_count()))]
    if device not in found:
        fail(f"there is no device {device!r} here, expected {' or '.join(found)}")


def fail(message: str) -> NoReturn:
    """Ends the command with a message and exit status 2."""
    typer.echo(f"{typer.style('Error:', fg='red', bold=True)} {' '.join(message.split())}", err=True)
    raise typer.Exit(2)


@contextlib.contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """What users can mend ends as one line, everything else as a traceback."""
    try:
        yield
    except kinds as error:
        fail(str(error))


def make_console() -> Console:
    """Standard output; as wide as the terminal, or wide enough for one row a line in a pipe or file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240, highlight=False)


@contextlib.contextmanager
def status(message: str) -> Iterator[None]:
    """Says on a terminal what takes so long."""
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(f"{escape(message)} …"):
        yield


def make_table(first: str, *columns: str) -> Table:
    """A table whose first column is text and whose others are figures."""
    from rich import box
    from rich.table import Table

    table = Table(first, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def print_rows(title: str, rows: Sequence[tuple[str, str]], table: Table | None = None) -> None:
    """Prints a title, a table if there is one, and labelled lines."""
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    console.print(Text(title, style="bold"))
    if table is not None:
        console.print(table)
    grid = Table.grid(padding=(0, 2))
    for label, text in rows:
        grid.add_row(Text(label, style="cyan"), Text(text))
    console.print(grid)


def print_names(names: Sequence[str]) -> None:
    """Prints names, in columns on a terminal and one a line elsewhere."""
    from rich.columns import Columns

    if sys.stdout.isatty():
        make_console().print(Columns(names, column_first=True, padding=(0, 3)))
    else:
        typer.echo("\n".join(names))


def counted(number: int, thing: str) -> str:
    """A number of things, such as ``"1 node"`` or ``"2 nodes"``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
