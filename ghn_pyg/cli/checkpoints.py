"""``ghn-pyg init`` and ``ghn-pyg convert``: make a checkpoint of a new GHN, or of another file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from . import options
from .files import load_ghn
from .options import argument, flag, option
from .terminal import print_rows, status, user_errors

if TYPE_CHECKING:
    from ..models.ghn import GHN


def init(
    model: Annotated[str, argument("MODEL", "A preset such as ghn3tm8; see `ghn-pyg models`.")],
    out: options.CheckpointFolder,
    seed: options.Seed = 0,
    num_classes: Annotated[
        int | None, option("N", "Number of classes of the networks, if not 1000.", min=1, max=options.MAX_CLASSES)
    ] = None,
) -> None:
    """Make an untrained GHN."""
    from ..models.config import GHNConfig

    options.check_folder(out)
    with user_errors(ValueError):
        config = GHNConfig.preset(model, **({} if num_classes is None else {"num_classes": num_classes}))
    with status(f"Building {model}"), user_errors():
        import torch

        from ..models.ghn import GHN

        torch.default_generator.manual_seed(seed)
        ghn = GHN(config)
    _save(ghn, model, out)


def convert(
    checkpoint: Annotated[str, argument("CHECKPOINT", options.GHN_FORMS)],
    out: options.CheckpointFolder,
    half: Annotated[bool, flag("--half", "Save in half precision, which halves the size.")] = False,
) -> None:
    """Convert a checkpoint to a folder with config.json and model.safetensors."""
    options.check_folder(out)
    ghn = load_ghn(checkpoint)
    _save(ghn.half() if half else ghn, checkpoint, out)


def _save(ghn: GHN, name: str, out: Path) -> None:
    """Saves a GHN as a checkpoint, and prints its size."""
    from ..models.checkpoints.errors import CheckpointError

    with status(f"Saving {out}"), user_errors(CheckpointError, OSError):
        ghn.save_pretrained(out)
    size = sum(parameter.numel() for parameter in ghn.parameters())
    print_rows(name, [("parameters", f"{size:,}"), ("saved", str(out))])
