"""Atomic file writes: a file is complete or unchanged."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{32}(\.\w+)?", re.ASCII)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces ``path`` when the context ends.

    The temporary file is in the same folder, so that the replacement is atomic. On an error it is removed, and
    ``path`` stays unchanged; an OSError names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "numbers.txt")) as temporary:
        ...         _ = temporary.write_text("2 3 5")
        ...     Path(folder, "numbers.txt").read_text()
        '2 3 5'
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # the user's umask; some writers set a stricter mode
        yield temporary
        temporary.chmod(mode)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())  # a full disk may only fail here
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_csv(path: str | os.PathLike[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes rows, of which the first has the names of the columns."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())


def remove_temporary_files(folder: str | os.PathLike[str]) -> None:
    """Removes temporary files of killed processes; no other process may write to the folder at the same time."""
    folder = Path(folder)
    for path in folder.iterdir() if folder.is_dir() else ():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)
