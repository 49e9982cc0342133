"""Locates a checkpoint by name: on disk, or in a repository of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from huggingface_hub import constants, errors, hf_hub_download

from ...utils.suggest import suggestion
from .errors import CheckpointError
from .write import CONFIG_FILE, WEIGHTS_FILE

PUBLISHED_REPOSITORY: Final = "SamsungSAILMontreal/ghn3"
PUBLISHED_NAMES: Final = ("ghn3tm8", "ghn3sm8", "ghn3lm8", "ghn3xlm16", "ghn2")
DEFAULT_NAME: Final = "ghn3xlm16"
BUNDLED: Final = {"digits": Path(__file__).parent / "bundled" / "digits"}
"""GHNs that come with the package: a small GHN-3 for networks that classify digits of 16×16 pixels."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_HASH: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_FILE_SUFFIXES: Final = (".pt", ".pth", ".safetensors", ".json")

# By the error of the hub's client; the first match counts.
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (errors.EntryNotFoundError, "the repository has no such file. Check the name and the revision"),
    (errors.RevisionNotFoundError, "the repository has no such revision. Check the branch, tag or commit"),
    (errors.GatedRepoError, "access to the repository must be requested. Request it on its page and pass a token"),
    (errors.RepositoryNotFoundError, "the repository does not exist, or is private. Check its name, or pass a token"),
)


def resolve(
    name: str | os.PathLike[str] = DEFAULT_NAME, *, repo_id: str = PUBLISHED_REPOSITORY, revision: str | None = None,
    cache_dir: str | Path | None = None, local_files_only: bool = False, force_download: bool = False,
    token: str | bool | None = None,
) -> Path:  # fmt: skip
    """Locates the file or folder of a checkpoint, and downloads it if needed.

    Args:
        name: The path of a file or folder, also of a training run, or one in an existing folder, which is never looked
            up on the hub; else one of :data:`BUNDLED` or :data:`PUBLISHED_NAMES`, with or without ``.pt``; else the
            ``user/repository`` of a model in this library's own format.
        repo_id: Repository of the published checkpoints.
        revision: Branch, tag or commit of the repository; the main branch by default.
        cache_dir: Folder of downloads; the hub's own cache by default.
        local_files_only: Use the cache and download nothing.
        force_download: Download files again that are in the cache.
        token: Access token, ``True`` for the stored one, ``False`` for none.

    Returns:
        A path for :func:`~ghn_pyg.models.checkpoints.read_checkpoint`.

    Raises:
        CheckpointError: If neither a file nor a checkpoint has that name, or the download fails; the message says
            what was tried.

    Example:
        >>> resolve("ghn3tm8")  # doctest: +SKIP
        PosixPath('.../models--SamsungSAILMontreal--ghn3/snapshots/.../ghn3tm8.pt')
    """
    path = os.path.expanduser(name)
    if os.path.exists(path):
        of_run = Path(path, "ghn")  # training writes it into the folder of the run
        return of_run if (of_run / CONFIG_FILE).exists() and not Path(path, CONFIG_FILE).exists() else Path(path)
    name = os.fspath(name)
    if name in BUNDLED:
        return BUNDLED[name]

    def download(repository: str, file: str, revision: str | None) -> Path:
        try:
            downloaded = hf_hub_download(
                repository, file, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only,
                force_download=force_download, token=token,
            )  # fmt: skip
        except Exception as error:  # versions of the client raise the errors of different HTTP libraries
            where = f"{file} of the hub's repository {repository!r} at revision {revision or 'main'!r}"
            raise CheckpointError(
                f"{name!r} is not a file or folder, and {where} cannot be loaded: {_reason(error, local_files_only)}"
            ) from error
        _check_hash(Path(downloaded).resolve())
        return Path(downloaded)

    stem = name.removesuffix(".pt")
    if stem in PUBLISHED_NAMES:
        return download(repo_id, f"{stem}.pt", revision)
    is_path = os.path.isdir(os.path.dirname(path) or name)  # such as runs/digits, in an existing folder
    if _REPOSITORY.fullmatch(name) and not name.endswith(_FILE_SUFFIXES) and not is_path:
        config = download(name, CONFIG_FILE, revision)
        # The same commit, which names the cache's folder, even if the repository changes in between.
        return download(name, WEIGHTS_FILE, config.parent.name).parent
    known = (*PUBLISHED_NAMES, *BUNDLED)
    base = os.path.basename(stem)
    # The last part of a path such as runs/digits/ghn resembles many names.
    hint = suggestion(base, known, cutoff=0.7) if base == stem or base in known else ""
    raise CheckpointError(
        f"{name!r} is not a file or folder, and not the name of a checkpoint. Expected a path, one of "
        f"{', '.join(known)}, or the user/repository of a saved model{hint}"
    )


def _check_hash(blob: Path) -> None:
    """Compares a file of the cache with the hub's hash, which is its name there: SHA-256, or Git's of small files."""
    start = {64: hashlib.sha256(), 40: hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)}
    if _HASH.fullmatch(blob.name):
        with open(blob, "rb") as file:
            found = hashlib.file_digest(file, lambda: start[len(blob.name)]).hexdigest()
        if found != blob.name:
            raise CheckpointError(
                f"the hub's file was changed, or damaged on its way: {blob} has the hash {found}, expected that in its "
                "name; remove it to download it again"
            )


def _reason(error: Exception, local_files_only: bool) -> str:
    if isinstance(error, ValueError) and isinstance(error.__cause__, Exception):  # of force_download
        error = error.__cause__
    failed = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    status = getattr(getattr(failed, "response", None), "status_code", 0)
    if status == 429 or status >= 500:
        return f"the hub answered with HTTP status {status}. Try again later, or pass the path of a checkpoint on disk"
    if isinstance(error, errors.LocalEntryNotFoundError):
        hub = "the hub cannot be reached; check the network"
        if local_files_only or constants.HF_HUB_OFFLINE:
            hub = f"nothing is downloaded, as {'local_files_only' if local_files_only else 'HF_HUB_OFFLINE'} is set"
        advice = "Pass the path of a checkpoint on disk, or make an untrained GHN with `ghn-pyg init`"
        return f"it is not in the local cache, and {hub}. {advice}"
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return f"{type(error).__name__}: {error}"
