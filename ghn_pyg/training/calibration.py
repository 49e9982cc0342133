"""Where meta-training starts from: predictions as large as good initial values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..data.images import Images
from ..families.deepnets import MetaBatches
from ..graph.arch_data import ArchData
from ..models.ghn import GHN
from .config import TrainConfig

_CALIBRATED = 8


@torch.no_grad()
def calibrate(ghn: GHN, graphs: Sequence[ArchData]) -> None:
    r"""Scales the last layers of a new GHN's weight decoder so that predictions have Kaiming's variance.

    As in principled initialisation of hypernetworks (ICLR 2020, arXiv 2312.08399), it is the *predicted* weights that
    should have the variance of initial ones: :math:`2 / n` for the weights of layers and :math:`1 / n` for that of the
    classifier, with fan-in :math:`n`, in the mean over weights. GHN-3's own initial weights (arXiv 2303.04143) make
    predictions that are 50 to 500 times smaller, and a step of the optimizer, which is as large for small weights as
    for large ones, then changes networks beyond recognition.

    Args:
        ghn: A GHN that was just made; it is changed in place.
        graphs: Networks to predict for it.

    Raises:
        ValueError: If a network has no classifier or no other weights.

    Example:
        >>> from ghn_pyg import GHNConfig
        >>> from ghn_pyg.families.deepnets import DeepNets
        >>> ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2, num_classes=10))
        >>> calibrate(ghn, DeepNets("train")[:3])
    """
    weights, classifier = ghn.decoder.weight.last_layers()
    # The classifier is decoded from the same blocks, so it comes last.
    weights.weight.mul_(1 / _spread(ghn, graphs, last=False))
    classifier.weight.mul_(1 / _spread(ghn, graphs, last=True))


def _spread(ghn: GHN, graphs: Sequence[ArchData], last: bool) -> float:
    """Standard deviation of predicted weights over that of Kaiming's, in the geometric mean."""
    logs = []
    for graph in graphs:
        prediction = ghn.predict(graph)
        for node, classifier in zip(graph.params, graph.classifier.tolist(), strict=True):
            for spec in node:
                if spec.role == "weight" and classifier == last and math.prod(spec.shape[1:]) > 1:
                    fan_in = math.prod(spec.shape[1:])
                    logs.append(math.log(float(prediction[spec.name].std()) / math.sqrt((1 if last else 2) / fan_in)))
    if not logs:
        raise ValueError(f"expected networks with {'a classifier' if last else 'weights before the classifier'}")
    return math.exp(sum(logs) / len(logs))


def first_networks(config: TrainConfig, images: Images) -> list[ArchData]:
    """Graphs of training networks, the same on all ranks, that a new GHN is calibrated on."""
    stream = MetaBatches(
        _CALIBRATED, num_classes=images.num_classes, image_size=images.image_size, widths=config.widths,
        seed=config.seed, rank=0, world_size=1,
    )  # fmt: skip
    return [graph for part in stream.meta_batch(0).micro_batches for graph in part.to_data_list()]
