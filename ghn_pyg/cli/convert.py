"""``ghn-pyg convert``: converts a checkpoint to config.json and model.safetensors."""

from __future__ import annotations

from typing import Annotated

from . import options
from .files import load_ghn
from .init import save_ghn
from .options import argument, flag


def convert(
    checkpoint: Annotated[str, argument("CHECKPOINT", options.GHN_FORMS)],
    out: options.CheckpointFolder,
    half: Annotated[bool, flag("--half", "Save in half precision, which halves the size.")] = False,
) -> None:
    """Convert a checkpoint to a folder with config.json and model.safetensors."""
    options.check_folder(out)
    ghn = load_ghn(checkpoint)
    save_ghn(ghn.half() if half else ghn, checkpoint, out)
