"""Unpacks the archives of ImageNet (ILSVRC 2012) into a folder for each class."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import numpy as np

from ..utils.atomic_files import unfinished_folder
from ..utils.optional import require
from ..utils.suggest import printable
from .images import ImagesError

DEVKIT: Final = "ILSVRC2012_devkit_t12.tar.gz"
ARCHIVES: Final = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")

_CLASS: Final = re.compile(r"(n\d{8})\.tar", re.ASCII)
_TRAINING_IMAGE: Final = re.compile(r"n\d{8}_\d+\.JPEG", re.ASCII)
_VALIDATION_IMAGE: Final = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.ASCII)
_SYNSET: Final = re.compile(r"n\d{8}", re.ASCII)
_LARGEST_TABLE: Final = 1 << 26  # bytes

Member = tuple[tarfile.TarInfo, re.Match[str]]
Progress = Callable[[int, int], None]


def unpack_imagenet(
    archive: str | os.PathLike[str], folder: str | os.PathLike[str], devkit: str | os.PathLike[str] | None = None,
    progress: Progress = lambda done, total: None,
) -> Path:  # fmt: skip
    """Unpacks the archive of training or of validation images into ``train`` or ``val``, as ImageNet is laid out.

    The part appears when it is complete. What a killed process leaves behind is removed, and the part unpacked again. A
    part that exists is left as it is.

    Args:
        archive: ``ILSVRC2012_img_train.tar`` or ``ILSVRC2012_img_val.tar``, by any name.
        folder: Folder of both parts, created if missing.
        devkit: ``ILSVRC2012_devkit_t12.tar.gz``, which has the classes of validation images; by default that beside the
            archive.
        progress: Called with the number of parts of the archive that are unpacked, and of all.

    Returns:
        The folder of the part.

    Raises:
        ImagesError: If the archive is damaged, or has other members than ImageNet's; nothing is left of it then.
        OSError: If the folder cannot be written.
        ImportError: If scipy is not installed, which reads the devkit.

    Example:
        >>> unpack_imagenet("ILSVRC2012_img_val.tar", "imagenet")  # doctest: +SKIP
        PosixPath('imagenet/val')
    """
    archive, folder = Path(archive), Path(folder)
    try:
        with tarfile.open(archive, "r:") as tar:
            is_train = _is_train(tar)
            members = _checked(tar, os.fspath(archive), _CLASS if is_train else _VALIDATION_IMAGE)
            part = folder / ("train" if is_train else "val")
            if part.exists():
                return part
            classes = [] if is_train else _classes(members, Path(devkit or archive.parent / DEVKIT))
            folder.mkdir(parents=True, exist_ok=True)
            needed, free = sum(member.size for member, _ in members), shutil.disk_usage(folder).free
            if needed > free:
                raise ImagesError(f"{part} needs {needed / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free in {folder}")
            with unfinished_folder(folder, part.name) as unfinished:
                for number, (member, match) in enumerate(members):
                    stream = _open(tar, member)
                    if is_train:
                        _unpack_class(stream, unfinished / part.name / match[1])
                    else:
                        _write(stream, unfinished / part.name / classes[int(match[1]) - 1] / match[0])
                    progress(number + 1, len(members))
                os.rename(unfinished / part.name, part)
    except tarfile.TarError as error:
        raise ImagesError(f"cannot read {archive}: {error}; expected a .tar archive of ImageNet") from error
    return part


def _is_train(tar: tarfile.TarFile) -> bool:
    first = next((member for member in tar if not member.isdir()), None)
    return first is not None and bool(_CLASS.fullmatch(PurePosixPath(first.name).name))


def _checked(tar: tarfile.TarFile, name: str, expected: re.Pattern[str]) -> list[Member]:
    """The members of the archive ``name``, which must all be plain files with the expected names, each once."""
    found: dict[str, Member] = {}
    for member in tar:
        path = PurePosixPath(member.name)
        match = expected.fullmatch(path.name)
        is_inside = not path.is_absolute() and ".." not in path.parts
        if member.isdir() and is_inside:
            continue
        if not match or not is_inside or not member.isreg() or member.issparse() or path.name in found:
            raise ImagesError(
                f"{name} has the member {printable(member.name)!r}, expected plain files with names such as "
                f"{expected.pattern}, each once; it is no archive of ImageNet, and nothing is unpacked"
            )
        found[path.name] = member, match
    if not found:
        raise ImagesError(f"{name} is empty, expected an archive of ImageNet")
    return list(found.values())


def _classes(members: list[Member], devkit: Path) -> list[str]:
    """The classes of all validation images, in the order of their numbers."""
    if not devkit.is_file():
        raise ImagesError(f"the classes of validation images are in {DEVKIT}, and there is no {devkit}; give --devkit")
    classes = read_devkit(devkit)
    if sorted(int(match[1]) for _, match in members) != list(range(1, len(classes) + 1)):
        raise ImagesError(
            f"expected the {len(classes):,} validation images that {devkit} has classes for, got {len(members):,}; the "
            "archive may be incomplete"
        )
    return classes


def read_devkit(path: Path) -> list[str]:
    """The synset of each validation image, such as ``"n01440764"``, in the order of their numbers."""
    try:
        with tarfile.open(path, "r:*") as tar:
            tables = dict(_tables(tar))
        loadmat = require("scipy.io", extra="train", purpose="the classes of validation images").loadmat
        rows = np.atleast_1d(loadmat(io.BytesIO(tables["meta.mat"]), squeeze_me=True)["synsets"])
        synsets = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
        numbers = tables["ILSVRC2012_validation_ground_truth.txt"].split()
        classes = [synsets[int(number)] for number in numbers]
    except ImportError:
        raise
    except Exception as error:  # the errors of a damaged file are not documented
        raise ImagesError(f"cannot read {path}: {type(error).__name__}: {error}; expected {DEVKIT}") from error
    if other := next((name for name in classes if not _SYNSET.fullmatch(name)), None):
        raise ImagesError(f"{path} has the class {printable(other)!r}, expected names such as n01440764")
    return classes


def _tables(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        name = PurePosixPath(member.name).name
        if name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt") and member.size < _LARGEST_TABLE:
            yield name, _open(tar, member).read()


def _unpack_class(stream: IO[bytes], folder: Path) -> None:
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member, match in _checked(tar, f"{folder.name}.tar", _TRAINING_IMAGE):
            _write(_open(tar, member), folder / match[0])


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream: Any = tar.extractfile(member)
    if stream is None:
        raise tarfile.ReadError(f"{member.name} is no file")
    return stream


def _write(stream: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as out:
        shutil.copyfileobj(stream, out)
