"""Finds a checkpoint by name: on disk, or in a repository of the Hugging Face hub."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ...utils.suggest import similar, suggestion
from .folder import CONFIG_FILE, WEIGHTS_FILE
from .key_names import CheckpointError

__all__ = ["BUNDLED", "DEFAULT_NAME", "PUBLISHED_NAMES", "PUBLISHED_REPOSITORY", "resolve"]

PUBLISHED_REPOSITORY: Final = "SamsungSAILMontreal/ghn3"
PUBLISHED_NAMES: Final = ("ghn3tm8", "ghn3sm8", "ghn3lm8", "ghn3xlm16", "ghn2")
DEFAULT_NAME: Final = "ghn3xlm16"
BUNDLED: Final = {"digits": Path(__file__).parent / "bundled" / "digits"}
"""What comes with the package: a small GHN-3 for networks that tell digits of 16×16 pixels apart."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_FILE_SUFFIXES: Final = (".pt", ".pth", ".safetensors", ".json")

# What went wrong, by what the hub's client raises; the first row that fits counts.
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (EntryNotFoundError, "the repository has no such file. Check the name and the revision"),
    (RevisionNotFoundError, "the repository has no such revision. Check the branch, tag or commit"),
    (GatedRepoError, "access to the repository must be asked for. Ask for it on its page and pass a token"),
    (RepositoryNotFoundError, "there is no such repository, or it is private. Check its name, or pass a token"),
)


def resolve(
    name: str | os.PathLike[str] = DEFAULT_NAME,
    *,
    repo_id: str = PUBLISHED_REPOSITORY,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Finds the file or folder of a checkpoint, downloading it if needed.

    Args:
        name: The path of a file or folder, which is taken as it is without asking the hub; else one of
            :data:`BUNDLED`, or of :data:`PUBLISHED_NAMES`, with or without ``.pt``; else the ``user/repository`` of a
            model that was saved in this library's own format.
        repo_id: Repository of the published checkpoints.
        revision: Branch, tag or commit of the repository; the main branch by default.
        cache_dir: Folder of downloads; the hub's own cache by default.
        local_files_only: Whether to use the cache alone.
        token: Access token, ``True`` for the one that is stored, ``False`` for none.

    Returns:
        A path for :func:`~ghn_pyg.models.checkpoints.folder.read_checkpoint`.

    Raises:
        CheckpointError: If there is no such file and no such name, or the hub does not give it; the message says
            what was tried.

    Example:
        >>> resolve("ghn3tm8")  # doctest: +SKIP
        PosixPath('.../models--SamsungSAILMontreal--ghn3/snapshots/.../ghn3tm8.pt')
    """
    path = os.path.expanduser(name)
    if os.path.exists(path):
        return Path(path)
    name = os.fspath(name)
    if name in BUNDLED:
        return BUNDLED[name]

    def download(repository: str, file: str, revision: str | None) -> Path:
        try:
            found = hf_hub_download(
                repository,
                file,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                token=token,
            )
        # Versions of the client raise the errors of different HTTP libraries.
        except Exception as error:
            where = f"{file} of the hub's repository {repository!r} at revision {revision or 'main'!r}"
            raise CheckpointError(
                f"{name!r} is no file or folder here, and {where} cannot be loaded: "
                f"{_reason(error, local_files_only)}{_beside(path)}"
            ) from error
        return Path(found)

    stem = name.removesuffix(".pt")
    if stem in PUBLISHED_NAMES:
        return download(repo_id, f"{stem}.pt", revision)
    if _REPOSITORY.fullmatch(name) and not name.endswith(_FILE_SUFFIXES):
        config = download(name, CONFIG_FILE, revision)
        # Of the same commit, even if the repository changes in between: the cache's folders are named after it.
        return download(name, WEIGHTS_FILE, config.parent.name).parent
    known = (*PUBLISHED_NAMES, *BUNDLED)
    base = os.path.basename(stem)
    # The last part of a path, as runs/digits/ghn, is near to many names.
    hint = suggestion(base, known, cutoff=0.7) if base == stem or base in known else ""
    raise CheckpointError(
        f"{name!r} is no file or folder here, and the name of no checkpoint. Expected a path, one of "
        f"{', '.join(known)}, or the user/repository of a saved model{_beside(path)}{hint}"
    )


def _beside(path: str) -> str:
    """What there is in the folder that a missing file or folder would be in, if that is here."""
    folder, missing = os.path.split(path)
    found: list[str] = []
    if not folder or not os.path.isdir(folder):
        return ""
    with contextlib.suppress(OSError):
        found = [os.path.join(folder, name) for name in similar(missing, sorted(os.listdir(folder)))]
    return f". The folder {folder!r} is here, but has no {missing!r}" + (
        f"; it has {', '.join(found)}" if found else ""
    )


def _reason(error: Exception, local_files_only: bool) -> str:
    if isinstance(error, LocalEntryNotFoundError):
        asked = "the hub could not be reached; check the network"
        if local_files_only or constants.HF_HUB_OFFLINE:
            asked = f"the hub was not asked, as {'local_files_only' if local_files_only else 'HF_HUB_OFFLINE'} is set"
        advice = "Pass the path of a checkpoint that you have, or make an untrained GHN with `ghn-pyg init`"
        return f"it is not in the local cache, and {asked}. {advice}"
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return f"{type(error).__name__}: {error}"
