"""Writing files so that they are complete or not there at all."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_UNFINISHED: Final = re.compile(r"\.[0-9a-f]{32}(\.\w+)?", re.ASCII)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary file's path to write to; at the end the file takes the place of ``path``.

    The temporary file lies in the same folder, so that taking its place is one step. If anything fails, it is removed
    and what ``path`` held before stays.

    Args:
        path: The file to write; its folder must exist.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "numbers.txt")) as unfinished:
        ...         _ = unfinished.write_text("2 3 5")
        ...     Path(folder, "numbers.txt").read_text()
        '2 3 5'
    """
    path = Path(path)
    unfinished = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode  # what the user's umask grants; some writers grant less
        yield unfinished
        unfinished.chmod(mode)
        with open(unfinished, "rb+") as stream:
            os.fsync(stream.fileno())  # a full disk may show up only here
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Removes temporary files of :func:`replacing` that a killed process left in a folder, where there is one.

    Nobody else may be writing into it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, f".{uuid.uuid4().hex}.pt").touch()
        ...     remove_unfinished(folder)
        ...     os.listdir(folder)
        []
    """
    folder = Path(folder)
    for path in folder.iterdir() if folder.is_dir() else ():
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
