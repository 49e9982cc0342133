"""Top-1 and top-5 accuracy of a network on test images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset, Subset

from ..data.images import Images, ImageSet
from ..finetuning.train_network import first_output
from ..models import batch_statistics, recalibrate
from ..training.distributed import all_reduce_sum

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Statistics = Literal["batch", "recalibrated", "running"]
BATCH_SIZE = 64
PUBLISHED_NOISE: Final = {"cifar10": 0.08, "cifar100": 0.08, "imagenet": 0.18}
"""Published standard deviations of noise on test images, for pixels from 0 to 1, by image data."""


class Accuracy(NamedTuple):
    """Top-1 and top-5 accuracy, as fractions from 0 to 1; with up to five classes, top-5 accuracy is NaN."""

    top1: float
    top5: float


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Batches of images in a fixed, shuffled order.

    A last batch of one image is merged into the one before, as batch statistics need two. ``noise`` is the standard
    deviation of Gaussian noise on the normalised images, for each colour channel.

    Example:
        >>> from ghn_pyg.data import load_images
        >>> len(Batches(load_images("digits").test, seed=3))
        6
    """

    def __init__(
        self, images: ImageSet, seed: int = 0, size: int = BATCH_SIZE, noise: Sequence[float] = (0, 0, 0)
    ) -> None:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        self.batches = list(order.split(size))
        if size > 1 and len(self.batches) > 1 and len(self.batches[-1]) == 1:
            self.batches[-2:] = [torch.cat(self.batches[-2:])]
        self.images = images
        self.seed = seed
        self.noise = torch.tensor(noise)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        images, labels = self.images.batch(self.batches[position].tolist())
        if self.noise.any():
            generator = torch.Generator().manual_seed(self.seed + 1 + position)
            images = images + self.noise.view(-1, 1, 1) * torch.randn(images.shape, generator=generator)
        return images, labels

    def load(self, workers: int = 0, rank: int = 0, ranks: int = 1) -> DataLoader[tuple[Tensor, Tensor]]:
        """A data loader over the batches, or over the share of one of several ranks."""
        return DataLoader(Subset(self, range(rank, len(self), ranks)), batch_size=None, num_workers=workers)


def published_noise(images: Images) -> float:
    """The standard deviation of the noise in published evaluations on these images.

    Example:
        >>> from ghn_pyg.data import load_images
        >>> published_noise(load_images("digits"))
        Traceback (most recent call last):
        ValueError: no noise is published for digits, only for cifar10, cifar100, imagenet; give a number
    """
    if (name := images.name.lower()) not in PUBLISHED_NOISE:
        raise ValueError(f"no noise is published for {name}, only for {', '.join(PUBLISHED_NOISE)}; give a number")
    return PUBLISHED_NOISE[name]


def in_top_k(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether labels (B,) are among the k classes with the largest logits (B, K); not if a logit is not finite.

    Example:
        >>> in_top_k(torch.tensor([[0.0, 2, 1], [0, torch.nan, 1]]), torch.tensor([2, 1]), k=2)
        tensor([ True, False])
    """
    classes = logits.topk(min(k, logits.size(1))).indices
    return (classes == labels.unsqueeze(1)).any(1) & logits.isfinite().all(1)


def measure(
    network: nn.Module, batches: Batches, device: Any = None, workers: int = 0, fabric: Fabric | None = None
) -> Accuracy:
    """Measures top-1 and top-5 accuracy of a network as it is; see :func:`evaluation_mode`.

    Args:
        network: Returns logits of shape (B, K), or a tuple or output of Transformers that begins with them.
        batches: The images.
        device: Device of the network, to which images are moved.
        workers: Processes that read images.
        fabric: The engine of several processes, which then share the batches.
    """
    correct, classes = torch.zeros(2, dtype=torch.long, device=device), 0
    rank, ranks = (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
    with torch.inference_mode():
        for images, labels in batches.load(workers, rank, ranks):
            logits, labels = first_output(network(images.to(device))).float(), labels.to(device)
            correct += torch.stack([in_top_k(logits, labels, k).sum() for k in (1, 5)])
            classes = logits.size(1)
    if fabric is not None:
        correct = all_reduce_sum(fabric, correct)
    top1, top5 = (correct / len(batches.images)).tolist()
    return Accuracy(top1, top5 if classes > 5 else math.nan)


@contextlib.contextmanager
def evaluation_mode(
    network: nn.Module, statistics: Statistics, images: Images, seed: int, device: Any, workers: int = 0
) -> Iterator[None]:
    """Inside this context a network runs in evaluation mode, with the chosen batch-norm statistics.

    Args:
        network: The network. Recalibration changes its running statistics.
        statistics: ``"recalibrated"``: estimated from ten batches of training images without augmentation, so that a
            prediction depends on its image alone; ``"batch"``: those of each batch of test images, as in published
            evaluations, which peeks at the other images of the batch and at their classes; ``"running"``: the
            network's own, from its training.
        images: The image data.
        seed: Seed of the order of training images.
        device: Device of the network.
        workers: Processes that read images.
    """
    network.eval()
    if statistics == "batch":
        with batch_statistics(network):
            yield
        return
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if statistics == "recalibrated":
        if norms:
            recalibrate(network, Batches(images.train.plain(), seed).load(workers), device=device)
    elif any(norm.running_mean is None for norm in norms):
        raise ValueError("batch norms track no running statistics; use recalibrated ones")
    yield
