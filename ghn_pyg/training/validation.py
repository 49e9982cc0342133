"""Validation of a GHN while it is trained: the accuracy of a few unseen networks on held-out training images."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from ..data import Images, ImageSet
from ..families.deepnets.dataset import DeepNets
from ..families.deepnets.network import Network
from ..graph.arch_data import ArchData
from ..models import load_prediction, recalibrate
from ..models.ghn import GHN
from ..utils.memory_guard import if_memory_suffices

NETWORKS: Final = 4
_BATCH_SIZE: Final = 64
_RECALIBRATION_BATCHES: Final = 10


def validation_networks(images: Images, width: int) -> list[ArchData]:
    """Graphs of the first networks of the split ``val``, which no run is trained on."""
    split = DeepNets("val", num_classes=images.num_classes, image_size=images.image_size, width=width)
    return [split[index] for index in range(NETWORKS)]


def validate(ghn: GHN, networks: Sequence[ArchData], images: Images) -> float:
    """Mean top-1 accuracy of networks with predicted parameters on the test images, from 0 to 1.

    Batch norms use statistics that are recalibrated on training images without augmentation. Networks that memory does
    not suffice for do not count; 0 if none remains.

    Example:
        >>> from ghn_pyg import from_pretrained
        >>> from ghn_pyg.data import load_images
        >>> digits = load_images("digits").hold_out(0.1)
        >>> validate(from_pretrained("digits"), validation_networks(digits, width=8)[:1], digits) > 0.8
        True
    """
    training = ghn.training
    ghn.eval()
    found = [if_memory_suffices(functools.partial(_accuracy, ghn, graph, images)) for graph in networks]
    ghn.train(training)
    accuracies = [accuracy for accuracy in found if accuracy is not None]
    return statistics.fmean(accuracies) if accuracies else 0.0


@torch.inference_mode()
def _accuracy(ghn: GHN, graph: ArchData, images: Images) -> float:
    architecture: Any = graph.architecture
    network = Network(architecture, images.num_classes, images.image_size).to(ghn.device).eval()
    load_prediction(network, ghn.predict(graph, seed=0))
    recalibrate(network, _batches(images.train.plain(), ghn.device), _RECALIBRATION_BATCHES)
    right = 0
    for inputs, labels in _batches(images.test, ghn.device):
        logits = network(inputs)
        right += int(((logits.argmax(1) == labels) & logits.isfinite().all(1)).sum())
    return right / len(images.test)


def _batches(images: ImageSet, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of all images in a fixed, shuffled order."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    for numbers in order.tensor_split(math.ceil(len(images) / _BATCH_SIZE)):
        inputs, labels = images.batch(numbers.tolist())
        yield inputs.to(device), labels.to(device)
