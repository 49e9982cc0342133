"""Batches of training images as a function of seed, step and rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..data import Images, ImageSet, load_images
from .config import TrainConfig
from .seeds import seed_of


def run_images(config: TrainConfig, augment: bool) -> Images:
    """Loads the image data of a run by :func:`~ghn_pyg.data.load_images`."""
    return load_images(
        config.images, config.folder, image_size=config.image_size, num_classes=config.ghn.num_classes,
        download=config.download, augment=augment, normalization=config.normalization, skip_damaged=config.skip_damaged,
    )  # fmt: skip


class ImageBatches(IterableDataset[tuple[Tensor, Tensor]]):
    """An endless stream of one rank's shares of image batches.

    Each epoch has a new order of the images; an incomplete last batch is dropped. Rank :math:`r` of :math:`R` reads
    the :math:`r`-th part of each batch. All parts together are the batch of a single process: the same images in the
    same order, with the same augmentation.

    Use it with ``DataLoader(ImageBatches(…), batch_size=None, num_workers=…)``.

    ``size`` counts the images of a batch on all ranks together, and ``first_step`` is the step to start with.

    Example:
        >>> from ghn_pyg.data import load_images
        >>> batches = ImageBatches(load_images("digits").train, 64, seed=3)
        >>> batches.steps_per_epoch, batches.batch(1000)[1].shape
        (22, torch.Size([64]))
    """

    def __init__(
        self, images: ImageSet, size: int, *, seed: int = 0, first_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if size % world_size:
            raise ValueError(f"batch_size must be a multiple of the {world_size} processes, got {size}")
        if size > len(images):
            raise ValueError(f"batch_size must not exceed the {len(images)} training images, got {size}")
        self.images = images
        self.size = size
        self.seed = seed
        self.first_step = first_step
        self.rank = rank
        self.world_size = world_size
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))  # of the last epoch that was read

    @property
    def steps_per_epoch(self) -> int:
        """Complete batches in an epoch."""
        return len(self.images) // self.size

    def image_numbers(self, step: int) -> list[int]:
        """Numbers of the images that the rank reads in a step."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
            self._order = epoch, torch.randperm(len(self.images), generator=generator)
        share = self.size // self.world_size
        start = batch * self.size + self.rank * share
        return self._order[1][start : start + share].tolist()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images of shape (B / R, 3, H, W) and labels of shape (B / R,) for a step."""
        examples = []
        with torch.random.fork_rng(devices=[]):
            for number in self.image_numbers(step):
                torch.default_generator.manual_seed(seed_of(self.seed, step, number))
                examples.append(self.images.batch([number]))
        images, labels = zip(*examples, strict=True)
        return torch.cat(images), torch.cat(labels)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All steps, or every n-th step in one of n workers, which a ``DataLoader`` merges in order."""
        info: Any = get_worker_info()
        offset, stride = (0, 1) if info is None else (info.id, info.num_workers)
        step = self.first_step + offset
        while True:
            yield self.batch(step)
            step += stride
