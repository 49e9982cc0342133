"""Initial weights of a GHN: new ones, calibrated ones, or those of another GHN."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ..data import Images
from ..families.deepnets.meta_batches import MetaBatches
from ..graph.arch_data import ArchData
from ..models.checkpoints.errors import CheckpointError
from ..models.checkpoints.locate import BUNDLED
from ..models.config import GHNConfig
from ..models.ghn import GHN
from ..nn.node_encodings import channel_sizes
from ..utils.memory_guard import if_memory_suffices
from .config import TrainConfig, recipe_names

_CALIBRATION_NETWORKS: Final = 8


def initial_ghn(config: TrainConfig, images: Images) -> tuple[GHN, str]:
    """The GHN of a run before its first step, the same on all ranks, and where its weights come from."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        ghn = GHN(config.ghn)
    source = "new weights"
    if config.start is not None:
        before = _load_start(config.start, config.ghn)
        source = f"all weights of {config.start}"
        if (classes := before.config.num_classes) != config.ghn.num_classes:
            source += f", which is for {classes:,} classes, but those of the classification layer"
        ghn.load_state_dict({**ghn.state_dict(), **_weights_for(config.ghn.num_classes, before)})
    if config.calibrate:
        stream = MetaBatches(
            _CALIBRATION_NETWORKS, num_classes=images.num_classes, image_size=images.image_size, widths=config.widths,
            seed=config.seed, rank=0, world_size=1,
        )  # fmt: skip
        calibrate(ghn, [graph for part in stream.meta_batch(0).parts for graph in part.to_data_list()])
    return ghn, source


def _weights_for(num_classes: int, ghn: GHN) -> dict[str, Tensor]:
    """The weights of a GHN that another number of classes can use.

    The embedding of the GHN's own number of classes becomes that of the other one.
    """
    weights, classes = ghn.state_dict(), ghn.config.num_classes
    if classes == num_classes:
        return weights
    sizes = channel_sizes(classes)
    rows = [sizes.index(size if size in sizes else classes) for size in channel_sizes(num_classes)]
    weights["shape_encoding.channel.weight"] = weights["shape_encoding.channel.weight"][[*rows, -1]]
    return {name: value for name, value in weights.items() if ".classifier." not in name}


def _load_start(name: str, config: GHNConfig) -> GHN:
    """Loads the GHN that a run starts from, which must have the same configuration but for the number of classes."""
    try:
        ghn = GHN.from_pretrained(name)
    except CheckpointError as error:
        folder = Path(name).parent  # a run writes its GHN to FOLDER/ghn
        command = f" first (`ghn-pyg train {folder.name} --out {folder}`)" if folder.name in recipe_names() else ""
        raise CheckpointError(
            f"the run starts from the weights of another GHN, but {error}. Train that one{command}, or set start to an "
            f"existing one, such as {', '.join(BUNDLED)}"
        ) from error
    before, now = ghn.config.shape.to_dict(), config.shape.to_dict()
    if changed := [field for field in now if before[field] != now[field] and field != "num_classes"]:
        raise CheckpointError(
            f"the run starts from the weights of {name}, whose configuration differs in "
            + ", ".join(f"{field} ({before[field]!r}, here {now[field]!r})" for field in changed)
            + "; set these fields of ghn to its values"
        )
    return ghn


@torch.no_grad()
def calibrate(ghn: GHN, graphs: Sequence[ArchData]) -> None:
    r"""Scales the last layers of a new GHN's weight decoder so that predicted weights have Kaiming's variance.

    Following principled initialisation of hypernetworks (arXiv 2312.08399), the *predicted* weights get the variance
    of good initial values: :math:`2 / n` with the fan-in :math:`n`, and :math:`1 / n` in the classifier, in the
    geometric mean over all weights. With GHN-3's initial weights (arXiv 2303.04143), predictions are 50 to 500 times
    smaller, and the first steps of Adam, whose size does not depend on that of the weights, change networks too much.

    Args:
        ghn: A new GHN; it is changed in place.
        graphs: Networks to predict.

    Raises:
        ValueError: If no network has a classifier, or none has other weights.

    Example:
        >>> from ghn_pyg import GHNConfig
        >>> from ghn_pyg.families.deepnets.dataset import DeepNets
        >>> ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2, num_classes=10))
        >>> calibrate(ghn, DeepNets("train")[:3])
    """
    weights, classifier = ghn.decoder.weight.last_layers()
    # The classifier is decoded from the same blocks, so it comes last.
    weights.weight.mul_(1 / _scale_of_predictions(ghn, graphs, classifier=False))
    classifier.weight.mul_(1 / _scale_of_predictions(ghn, graphs, classifier=True))


def _scale_of_predictions(ghn: GHN, graphs: Sequence[ArchData], classifier: bool) -> float:
    """Geometric mean of predicted over Kaiming's standard deviation."""
    logs = []
    for graph in graphs:
        prediction = if_memory_suffices(functools.partial(ghn.predict, graph)) or {}
        for specs, in_classifier in zip(graph.params, graph.classifier.tolist(), strict=True) if prediction else ():
            for spec in specs:
                fan_in = math.prod(spec.shape[1:])
                if spec.role == "weight" and in_classifier == classifier and fan_in > 1:
                    kaiming = math.sqrt((1 if classifier else 2) / fan_in)
                    logs.append(math.log(float(prediction[spec.name].std()) / kaiming))
    if not logs:
        part = "a classifier" if classifier else "weights before the classifier"
        raise ValueError(f"expected networks with {part} that fit into memory; smaller widths need less")
    return math.exp(sum(logs) / len(logs))
