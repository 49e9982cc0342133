"""``ghn-pyg images``: prepares image data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import argument, option
from .terminal import fail, print_line, status, unpacking_bar, user_errors

app = typer.Typer(help="Prepare image data.", no_args_is_help=True)


@app.command()
def imagenet(
    archive: Annotated[Path, argument("ARCHIVE", "The archive of training or of validation images, or their folder.")],
    folder: Annotated[Path, argument("FOLDER", "Gets the folders train and val, with one folder for each class.")],
    devkit: Annotated[
        Path | None,
        option("FILE", "ILSVRC2012_devkit_t12.tar.gz, for validation images; by default beside the archive."),
    ] = None,
) -> None:
    """Unpack ImageNet as training and evaluation read it. A part that exists is left as it is."""
    with status("Loading"):
        from ..data.imagenet_archives import ARCHIVES, unpack_imagenet
        from ..data.images import ImagesError

    archives = [archive / name for name in ARCHIVES if (archive / name).is_file()] if archive.is_dir() else [archive]
    if not archives:
        fail(f"there is neither {' nor '.join(ARCHIVES)} in {archive}")
    for each in archives:
        with user_errors(ImagesError, OSError, ImportError), unpacking_bar(f"Unpacking {each.name}") as progress:
            part = unpack_imagenet(each, folder, devkit, progress)
        count = sum(1 for _ in part.iterdir())
        print_line(f"{part}: {count:,} classes")
