"""The GHN whose weights a run starts from."""

from __future__ import annotations

from pathlib import Path

import torch

from ..data.images import Images
from ..models.checkpoints.errors import CheckpointError
from ..models.checkpoints.locate import BUNDLED
from ..models.config import GHNConfig
from ..models.ghn import GHN
from .calibration import calibrate, first_networks
from .config import TrainConfig
from .load_config import recipe_names


def first_ghn(config: TrainConfig, images: Images) -> GHN:
    """The GHN of a new run as it is before the first step.

    Args:
        config: The run.
        images: Its image data.

    Raises:
        CheckpointError: If the run starts from a GHN that is not there, or has another configuration.

    Example:
        >>> from ghn_pyg.data.images import load_images
        >>> from ghn_pyg.training.load_config import load_config
        >>> ghn = first_ghn(load_config("digits", ["start=digits", "calibrate=false"]), load_images("digits"))
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        ghn = GHN(config.ghn)
    if config.start is not None:
        ghn.load_state_dict(load_start(config.start, config.ghn).state_dict())
    if config.calibrate:
        calibrate(ghn, first_networks(config, images))
    return ghn


def load_start(name: str, config: GHNConfig) -> GHN:
    """Loads a GHN that a run can start from.

    Args:
        name: As :func:`~ghn_pyg.models.ghn.from_pretrained` takes it.
        config: The configuration of the run's GHN, which must be its own.

    Raises:
        CheckpointError: If there is no such GHN, or it has another configuration; the message says what to do.

    Example:
        >>> load_start("digits", GHN.from_pretrained("digits").config).config.layers
        3
    """
    try:
        ghn = GHN.from_pretrained(name)
    except CheckpointError as error:
        folder = Path(name).parent  # a run into FOLDER leaves its GHN in FOLDER/ghn
        command = f" first (`ghn-pyg train {folder.name} --out {folder}`)" if folder.name in recipe_names() else ""
        raise CheckpointError(
            f"the run starts from the weights of another GHN, but {error}. Train that one{command}, or set start to "
            f"one that is here, such as {', '.join(BUNDLED)}"
        ) from error
    before, now = ghn.config.to_dict(), config.to_dict()
    if odd := [field for field in now if before[field] != now[field]]:
        raise CheckpointError(
            f"the run starts from the weights of {name}, whose configuration differs in "
            + ", ".join(f"{field} ({before[field]!r}, here {now[field]!r})" for field in odd)
            + "; set these fields of ghn to its values"
        )
    return ghn
