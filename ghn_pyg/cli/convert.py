"""``ghn-pyg convert``: converts a checkpoint to config.json and model.safetensors."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .init import save_ghn
from .load import load_ghn


def convert(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help=f"The GHN: {options.GHN_FORMS}.")],
    out: options.CheckpointFolder,
    half: Annotated[bool, typer.Option("--half", help="Save in half precision, which halves the size.")] = False,
) -> None:
    """Convert a checkpoint to a folder with config.json and model.safetensors."""
    options.check_folder(out)
    ghn = load_ghn(checkpoint)
    save_ghn(ghn.half() if half else ghn, checkpoint, out)
