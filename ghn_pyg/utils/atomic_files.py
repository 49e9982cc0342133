"""Atomic file writes: a file is complete or unchanged, and files of killed processes go at the next write."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

try:
    import fcntl as _fcntl
except ImportError:  # on Windows, where files of killed processes stay
    _fcntl = None  # type: ignore[assignment]

_PREFIX: Final = ".ghn-pyg-unfinished-"
_COMPLETE: Final = ".ghn-pyg-complete"
_OF_EARLIER_VERSIONS: Final = re.compile(r"\.[0-9a-f]{32}(\.\w+)?", re.ASCII)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces ``path`` when the context ends.

    The temporary file is on the same disk, so that the replacement is atomic. On an error it is removed, and ``path``
    stays unchanged; an OSError names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "numbers.txt")) as temporary:
        ...         _ = temporary.write_text("2 3 5")
        ...     Path(folder, "numbers.txt").read_text()
        '2 3 5'
    """
    with replacing_together(path) as (temporary,):
        yield temporary


@contextlib.contextmanager
def replacing_together(*paths: str | os.PathLike[str]) -> Iterator[list[Path]]:
    """The same for several files of one folder: all are replaced, or none.

    A folder of all new files gets its final name in one step. Then they are moved out of it; if the process is killed
    meanwhile, by the next writer or by :func:`finish_replacing`, which readers call first.
    """
    parent = Path(paths[0]).parent
    try:
        if folders := [path for path in paths if os.path.isdir(path)]:
            raise IsADirectoryError(errno.EISDIR, f"{os.fspath(folders[0])} is a folder")
        with unfinished_folder(parent) as folder:
            temporaries = [folder / Path(path).name for path in paths]
            for temporary in temporaries:
                temporary.touch()
            mode = temporaries[0].stat().st_mode  # the user's umask; some writers set a stricter mode
            yield temporaries
            for temporary in temporaries:
                temporary.chmod(mode)
                with open(temporary, "rb+") as stream:
                    os.fsync(stream.fileno())  # a full disk may only fail here
            if len(paths) == 1:
                os.replace(temporaries[0], paths[0])
                return
            with _locked(parent):
                _move_complete(parent)
                os.replace(folder, parent / _COMPLETE)
                _move_complete(parent)
    except OSError as error:
        raise OSError(f"cannot write {os.fspath(paths[0])}: {error.strerror or error}") from error


def finish_replacing(parent: str | os.PathLike[str]) -> None:
    """Moves complete files into a folder that a process was killed before it could."""
    if Path(parent, _COMPLETE).is_dir():
        with _locked(parent):
            _move_complete(parent)


def _move_complete(parent: str | os.PathLike[str]) -> None:
    complete = Path(parent, _COMPLETE)
    if complete.is_dir() and not complete.is_symlink():  # files of another folder stay there
        for path in complete.iterdir():
            os.replace(path, Path(parent, path.name))
        complete.rmdir()


@contextlib.contextmanager
def unfinished_folder(parent: str | os.PathLike[str], alone: str = "") -> Iterator[Path]:
    """Yields a new folder in ``parent``, which is removed when the context ends, or by the next call if killed.

    Args:
        parent: The folder to make it in.
        alone: A name of what is written. While one context has it, another for the same folder raises an OSError.
    """
    with contextlib.ExitStack() as stack:
        with _locked(parent):  # until it is locked, the new folder looks like that of a killed process
            _remove_unlocked(parent)
            folder = _make_alone(parent, alone) if alone else tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
            stack.enter_context(_locked(folder))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)  # then others may use its name
        (inner := Path(folder, "files")).mkdir()  # not locked, so that files in it can be replaced as well
        yield inner


def _make_alone(parent: str | os.PathLike[str], name: str) -> str:
    folder = os.path.join(parent, _PREFIX + name)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError as error:
        raise BlockingIOError(
            errno.EWOULDBLOCK, "another process writes here; wait for it, or remove this if it was killed", folder
        ) from error
    return folder


def remove_unfinished(parent: str | os.PathLike[str]) -> None:
    """Removes what killed processes left in a folder, those of earlier versions too, whose files have no lock."""
    with _locked(parent):
        _remove_unlocked(parent)
    for path in Path(parent).glob(".*"):
        if _OF_EARLIER_VERSIONS.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _remove_unlocked(parent: str | os.PathLike[str]) -> None:
    _move_complete(parent)
    for path in Path(parent).glob(f"{_PREFIX}*"):
        with _locked(path, wait=False) as locked:
            if locked:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: str | os.PathLike[str], wait: bool = True) -> Iterator[bool]:
    """Locks a folder until its process ends, if the file system can; yields whether it is locked."""
    with contextlib.ExitStack() as stack:
        locked = False
        with contextlib.suppress(OSError, AttributeError):
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl: Any = _fcntl
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            locked = True
        yield locked


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_csv(path: str | os.PathLike[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes rows, of which the first has the names of the columns."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())
