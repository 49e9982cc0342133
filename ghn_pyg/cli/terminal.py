"""Prints tables, progress and errors of commands on the terminal."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

from ..utils.suggest import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table


_FIELD: Final = re.compile(r"^(?:\w+Config\.)?([a-z]\w*)(?:\.\d+)?(?= (?:expected|must))")

LOG_SECONDS: Final = 30.0
"""Time between lines where there is no terminal for a progress bar."""


def one_line(text: str) -> str:
    """A text from anywhere in one line, without characters that a terminal obeys, and not too long."""
    return printable(" ".join(text.split()), 4_000)


def fail(message: str) -> NoReturn:
    """Ends the command with an error in one line and exit status 2."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    error = typer.style("Error:", fg="red", bold=True)
    typer.echo(f"{error} {one_line(message)}", err=True, color=False if plain else None)
    raise typer.Exit(2)


@contextlib.contextmanager
def user_errors(*kinds: type[Exception], fields: Mapping[str, str] | None = None) -> Iterator[None]:
    """Shows errors that the user can fix as one line, also of memory. Others keep their traceback.

    ``fields`` has the options for names of fields that messages begin with, such as ``batch_size expected ...``.
    """
    caught: tuple[type[Exception], ...] = (MemoryError, *kinds)
    try:
        yield
    except caught as error:
        message = str(error)
        if message.startswith("Caught "):  # a process of a DataLoader adds its traceback
            message = message.rpartition(f"{type(error).__name__}: ")[2]
        fail(_FIELD.sub(lambda match: (fields or {}).get(match[1], match[0]), message))
    except (RuntimeError, MemoryError) as error:
        from ..utils.memory_guard import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        fail(f"memory does not suffice ({error}); take smaller images, batches or networks")


@contextlib.contextmanager
def status(message: str) -> Iterator[None]:
    """Shows on a terminal what takes time."""
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(f"{escape(message)} …"):
        yield


def make_progress(*columns: Any, visible: bool = True) -> Progress:
    """A progress bar on standard error, shown if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not (visible and console.is_terminal))


@contextlib.contextmanager
def progress_bar(total: int, description: str) -> Iterator[Callable[..., None]]:
    """A progress bar, as a function to call after each step with any arguments.

    Without a terminal it writes a line to standard error from time to time.
    """
    start_time = logged = time.monotonic()
    with make_progress() as progress:
        task = progress.add_task(description, total=total)

        def note(*_: Any) -> None:
            nonlocal logged
            progress.advance(task)
            now, done = time.monotonic(), progress.tasks[task].completed
            if progress.disable and done < total and now - logged > LOG_SECONDS:
                logged = now
                minutes = (now - start_time) / done * (total - done) / 60
                typer.echo(f"{description}: {done:,.0f} of {total:,}, {minutes:,.0f} min left", err=True)

        yield note


@contextlib.contextmanager
def unpacking_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, as a function to call with the number of things that are done, and of all."""
    with make_progress() as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextlib.contextmanager
def epoch_bar(description: str, epochs: int, visible: bool = True) -> Iterator[Callable[[float, str], None]]:
    """A progress line, as a function to call with the epochs that are done and figures to show.

    Without a terminal it writes a line to standard error from time to time.
    """
    from rich.progress import TextColumn, TimeRemainingColumn
    from rich.table import Column

    name = TextColumn("{task.description}", table_column=Column())  # these may wrap, so that epochs and time fit
    figures = TextColumn("{task.fields[text]}", table_column=Column())
    epoch = TextColumn("epoch {task.completed:.2f} of {task.total}")
    first: tuple[float, float] | None = None
    logged = 0.0
    with make_progress(name, epoch, figures, TimeRemainingColumn(), visible=visible) as progress:
        task = progress.add_task(description, total=epochs, text="")

        def note(done: float, text: str) -> None:
            nonlocal first, logged
            now = time.monotonic()
            first = first or (now, done)
            progress.update(task, completed=done, text=text)
            if progress.disable and visible and done > first[1] and now - logged > LOG_SECONDS:
                logged = now
                minutes = (now - first[0]) / (done - first[1]) * (epochs - done) / 60
                line = f"{epoch.render(progress.tasks[task])}, {text}, {minutes:,.0f} min left"
                typer.echo(description + line, err=True)

        yield note


def make_console() -> Console:
    """Standard output, as wide as the terminal; in a pipe or file wide enough for one row a line."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 240, highlight=False)
    console.on_broken_pipe = _ignore_broken_pipe  # type: ignore[method-assign]
    return console


def _ignore_broken_pipe() -> None:
    """Prints nothing more when nobody reads it; what a command saves and returns does not depend on that."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_table(first: str, *columns: str) -> Table:
    """A table whose first column is text and whose other columns are numbers."""
    from rich import box
    from rich.table import Table

    table = Table(first, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def print_rows(title: str, rows: Sequence[tuple[str, str]], table: Table | None = None) -> None:
    """Prints a title, a table if given, and labelled lines."""
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    console.print(Text(one_line(title), style="bold"))
    if table is not None:
        console.print(table)
    grid = Table.grid(padding=(0, 2))
    for label, text in rows:
        grid.add_row(Text(label, style="cyan"), Text(one_line(text)))
    console.print(grid)


def print_line(text: str, style: str | None = None) -> None:
    """Prints a line as it is, without wrapping it."""
    make_console().print(one_line(text), style=style, soft_wrap=True, markup=False)


def print_failures(reasons: Mapping[str, str]) -> None:
    """Prints in red what failed, with the reasons."""
    for name, reason in reasons.items():
        print_line(f"failed: {name}: {reason}", "red")


def counted(number: int, thing: str) -> str:
    """A number of things, such as ``"1 node"`` or ``"2 nodes"``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
