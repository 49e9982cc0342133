"""Top-1 and top-5 accuracy of one network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset

from ..data import Images, ImageSet
from ..models.apply import batch_statistics, recalibrate

Statistics = Literal["batch", "recalibrated", "running"]
BATCH_SIZE = 64
_TOP = 5


class Accuracy(NamedTuple):
    """Shares of images, from 0 to 1, whose class is a network's first choice, and among its first five."""

    top1: float
    top5: float


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Images in batches of a fixed, shuffled order.

    Args:
        images: The images.
        seed: Seed of the order.
        size: Images in a batch; a last batch of one goes with the one before, as batch norms need two.
        noise: For each colour the standard deviation of Gaussian noise that is added to the normalised images.

    Example:
        >>> from ghn_pyg.data import load_images
        >>> len(Batches(load_images("digits").test, seed=3))
        6
    """

    def __init__(
        self, images: ImageSet, seed: int = 0, size: int = BATCH_SIZE, noise: Sequence[float] = (0, 0, 0)
    ) -> None:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        batches = list(order.split(size))
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        self.images = images
        self.batches = batches
        self.seed = seed
        self.noise = torch.tensor(noise).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        if not 0 <= position < len(self):
            raise IndexError(f"batch {position} of {len(self)}")
        images, labels = self.images.batch(self.batches[position].tolist())
        if self.noise.any():
            generator = torch.Generator().manual_seed(self.seed + 1 + position)
            images = images + self.noise * torch.randn(images.shape, generator=generator)
        return images, labels

    def load(self, workers: int = 0) -> DataLoader[tuple[Tensor, Tensor]]:
        """The batches one after the other, read by worker processes."""
        return DataLoader(self, batch_size=None, num_workers=workers)


def hits(logits: Tensor, labels: Tensor, top: int) -> Tensor:
    """Which images have their class among a network's first choices.

    Args:
        logits: Of shape (B, K). An image with a logit that is not finite counts as wrong.
        labels: Of shape (B,).
        top: How many choices.

    Returns:
        Of shape (B,) and type bool.

    Example:
        >>> hits(torch.tensor([[0.0, 2, 1], [0, torch.nan, 1]]), torch.tensor([2, 1]), 2)
        tensor([ True, False])
    """
    chosen = logits.topk(min(top, logits.size(1))).indices
    return (chosen == labels.unsqueeze(1)).any(1) & logits.isfinite().all(1)


def measure(network: nn.Module, batches: Batches, device: Any = None, workers: int = 0) -> Accuracy:
    """The accuracy of a network as it is.

    Args:
        network: Gives logits of shape (B, K).
        batches: The images.
        device: Where the network is, and images are sent to.
        workers: Processes that read images.
    """
    from torchmetrics import MeanMetric

    top1, top5 = MeanMetric().to(device), MeanMetric().to(device)
    with torch.inference_mode():
        for images, labels in batches.load(workers):
            logits, labels = network(images.to(device)).float(), labels.to(device)
            top1.update(hits(logits, labels, 1).float())
            top5.update(hits(logits, labels, _TOP).float())
    return Accuracy(top1.compute().item(), top5.compute().item())


@contextlib.contextmanager
def norms(
    network: nn.Module, statistics: Statistics, images: Images, seed: int, device: Any, workers: int = 0
) -> Iterator[None]:
    """Inside this context a network evaluates with the chosen batch-norm statistics, and without dropout.

    Args:
        network: The network; its running statistics change if they are recalibrated.
        statistics: ``"batch"``: those of each batch, as published evaluations; ``"recalibrated"``: those of ten
            batches of training images, not augmented; ``"running"``: those that the network has, from its training.
        images: The image data.
        seed: Seed of the order of training images.
        device: Where the network is.
        workers: Processes that read images.

    Raises:
        ValueError: If batch norms keep no statistics, and are to use them.
    """
    network.eval()
    if statistics != "batch":
        kept = [norm.running_mean is not None for norm in network.modules() if isinstance(norm, _BatchNorm)]
        if kept and not any(kept):
            raise ValueError("its batch norms keep no statistics of their own; use those of each batch")
    if statistics == "recalibrated":
        recalibrate(network, Batches(images.train.plain(), seed).load(workers), device=device)
        yield
    elif statistics == "running":
        yield
    else:
        with batch_statistics(network):
            yield
