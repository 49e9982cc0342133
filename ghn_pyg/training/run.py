"""Meta-training runs, which can be stopped and resumed without any effect on the result."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import Images
from ..families.deepnets.curriculum import Curriculum
from ..families.deepnets.meta_batches import MetaBatch, MetaBatches
from ..models.checkpoints.write import write_folder
from ..models.ghn import GHN
from ..models.trained_for import TrainedFor
from ..utils.atomic_files import remove_unfinished
from ..utils.memory_guard import is_out_of_memory
from .bad_steps import check_skipped, clip_and_step, record_step, roll_back
from .checkpoints import (
    TrainingError,
    check_same_run,
    checkpoint_paths,
    load_checkpoint,
    lock_folder,
    read_checkpoint,
    write_checkpoint,
    write_config,
)  # fmt: skip
from .config import TrainConfig
from .distributed import (
    all_gather,
    all_reduce_gradients,
    all_reduce_sum,
    barrier,
    broadcast_weights,
)
from .fabric import make_fabric
from .image_batches import ImageBatches, run_images
from .initial_weights import initial_ghn
from .learning_rate import learning_rate
from .logs import LogRow, RunLog
from .seeds import preserve_rng
from .state import TrainingState
from .step import meta_gradient
from .validation import validate, validation_networks

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_logger = logging.getLogger(__name__)


def train(config: TrainConfig, folder: str | os.PathLike[str], **options: Any) -> GHN:
    """Meta-trains a GHN as :func:`run_training` does with the same arguments, and returns it in evaluation mode.

    Example:
        >>> ghn = train(load_config("ghn3-t-cifar10"), "runs/ghn3-t")  # doctest: +SKIP
    """
    return run_training(config, folder, **options).state.trained_ghn.eval()


def run_training(
    config: TrainConfig, folder: str | os.PathLike[str], *, fabric: Fabric | None = None, images: Images | None = None,
    steps: int | None = None, workers: int = 0, progress: Callable[[LogRow], None] = lambda row: None,
) -> Run:  # fmt: skip
    """Starts a run, or resumes one that was stopped.

    The folder gets the configuration (``train.json``), the log (``log.csv``, and ``tensorboard/`` if TensorBoard is
    installed), the last ``checkpoints/``, the GHN of the checkpoint with the best accuracy on held-out images
    (``best/``) and, at the end, the trained GHN (``ghn/``): the last one or, if the last steps were bad, that of the
    last checkpoint.
    Several machines must share it.

    Args:
        config: The run.
        folder: Folder of the run, created if missing.
        fabric: The engine; by default one with the precision of the configuration.
        images: The image data; by default that of the configuration.
        steps: Stop after this many steps in total, before the end of the last epoch; the run can be resumed.
        workers: Number of processes that make architectures, and of those that read images.
        progress: Called with each row of the log, on rank 0.

    Returns:
        The run, with the trained GHN as ``run.state.trained_ghn`` and counts of its steps as ``run.state.progress``.

    Raises:
        TrainingError: If the folder has another run or another process trains in it, the configuration does not fit
            the data or the number of processes, no step is good even after all roll-backs, most steps were skipped,
            memory does not suffice for the GHN itself, or another process ends.
        CheckpointError: If a checkpoint cannot be written or read.
        OSError: If the folder cannot be written or locked.
        ImportError: If Lightning Fabric is not installed.
    """
    fabric, folder = fabric or make_fabric(config.precision), Path(folder)
    with fabric.rank_zero_first() if config.download else contextlib.nullcontext():
        images = images or run_images(config, config.augment)
    _check(config, images, fabric.world_size)
    with preserve_rng(fabric.device), lock_folder(folder) if fabric.is_global_zero else contextlib.nullcontext():
        barrier(fabric)  # rank 0 has the lock
        run = Run(config, folder, fabric, images)
        run.run(run.length if steps is None else min(steps, run.length), workers, progress)
    return run


def _check(config: TrainConfig, images: Images, ranks: int) -> None:
    if config.ghn.num_classes != images.num_classes:
        raise TrainingError(
            f"the GHN is for {config.ghn.num_classes} classes and {images.name} has {images.num_classes}; set "
            "ghn.num_classes to it"
        )
    if config.meta_batch < ranks:
        raise TrainingError(f"meta_batch must be at least {ranks}, one for each process, got {config.meta_batch}")
    try:
        ImageBatches(images.hold_out(config.held_out).train, config.batch_size, world_size=ranks)
    except ValueError as error:
        raise TrainingError(str(error)) from error


class Run:
    """A run on one rank.

    Args:
        config: The run.
        folder: Its folder. If that has checkpoints, the run resumes from the last one.
        fabric: The engine.
        images: The image data.

    Attributes:
        state: Weights, optimizer and progress.
        length: Steps of the whole run.
        saved_step: Steps of the trained GHN, less than those of the run if the last ones were bad.
    """

    def __init__(self, config: TrainConfig, folder: Path, fabric: Fabric, images: Images) -> None:
        check_same_run(folder, config)
        trained_for = TrainedFor(
            data=images.source or images.name, image_size=images.image_size, mean=images.mean, std=images.std,
            classes=images.classes, widths=config.widths.widths, held_out=config.held_out,
        )  # fmt: skip
        config = config.replace(ghn=config.ghn.replace(trained_for=trained_for))
        self.config = config
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.fabric = fabric
        self.images = images.hold_out(config.held_out)
        self.data = f"{images.name.lower()}, {len(images.train):,} images of {images.num_classes:,} classes"
        self.steps_per_epoch = config.epoch_steps or self.images_from(0).steps_per_epoch
        self.kept_steps = config.keep_every * self.steps_per_epoch
        self.length = config.epochs * self.steps_per_epoch
        self.curriculum = Curriculum(round(config.curriculum * self.length))
        paths = checkpoint_paths(self.checkpoints)
        held_out = len(self.images.test)
        self.validation = validation_networks(images, trained_for.evaluation_width) if held_out else []
        ghn, source = (GHN(config.ghn), "") if paths else initial_ghn(config, images)
        ghn = ghn.to(fabric.device).train()
        broadcast_weights(fabric, ghn)
        if config.compile:
            ghn.encoder.compile()  # in place, which keeps the names of its tensors
        self.state = TrainingState(ghn, config, fabric)
        self.state.progress.source = source
        if paths:
            load_checkpoint(self.state, paths[-1], config, self.data)
        step = self.state.progress.step if paths else -1
        steps = all_gather(fabric, torch.tensor([step], device=fabric.device)).tolist()
        if len(set(steps)) > 1:
            raise TrainingError(
                f"the processes have different checkpoints in {folder}, of the steps {', '.join(map(str, steps))} "
                "(-1 is none); all machines must share one folder"
            )

    def images_from(self, step: int) -> ImageBatches:
        """This rank's stream of images."""
        return ImageBatches(
            self.images.train, self.config.batch_size, seed=self.config.seed, first_step=step,
            rank=self.fabric.global_rank, world_size=self.fabric.world_size,
        )  # fmt: skip

    def architectures_from(self, step: int) -> MetaBatches:
        """This rank's stream of architectures."""
        config = self.config
        return MetaBatches(
            config.meta_batch, num_classes=self.images.num_classes, image_size=self.images.image_size,
            widths=config.widths, seed=config.seed, first_step=step, node_budget=config.node_budget,
            rank=self.fabric.global_rank, world_size=self.fabric.world_size, split=config.split,
            networks=config.networks, curriculum=self.curriculum, device=self.fabric.device.type,
        )  # fmt: skip

    def batches(self, workers: int) -> Iterator[tuple[MetaBatch, tuple[Tensor, Tensor]]]:
        """Architectures and images from the next step on."""
        step = self.state.progress.step
        streams = (self.architectures_from(step), self.images_from(step))
        loaders = [DataLoader(stream, batch_size=None, num_workers=workers) for stream in streams]
        return zip(*loaders, strict=True)

    def run(self, stop: int, workers: int = 0, report: Callable[[LogRow], None] = lambda row: None) -> None:
        """Trains up to the step ``stop``; rank 0 writes the log and the trained GHN."""
        if not self.fabric.is_global_zero:
            self._train(stop, workers, lambda row: None)
            return
        for folder in (self.folder, self.checkpoints, self.folder / "best", self.folder / "ghn"):
            remove_unfinished(folder)
        for old in checkpoint_paths(self.checkpoints)[: -self.config.keep]:  # of a run that was killed before it could
            old.unlink(missing_ok=True)
        write_config(self.folder, self.config)
        with RunLog(self.folder, self.state.progress.step) as log:

            def record(row: LogRow) -> None:
                log.write(row)
                report(row)

            self._train(stop, workers, record)
        self._write_ghn("ghn", {"step": str(self.saved_step)})

    def _train(self, stop: int, workers: int, record: Callable[[LogRow], None]) -> None:
        progress = self.state.progress
        if progress.step:
            _logger.info("resuming with step %d", progress.step)
        else:
            self._save()
        batches = self.batches(workers)
        while progress.step < stop:
            start_time = time.perf_counter()
            try:
                row = self.step(*next(batches), start_time)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise TrainingError(
                    f"step {progress.step}: memory does not suffice, and not because of a network ({error}); take a "
                    "smaller GHN or batch_size"
                ) from error
            due = self._regular or progress.step == stop or self._is_kept
            # After a bad step, a checkpoint might replace a good one that the run has to roll back to.
            save = due and self.state.is_good
            if save and self._regular and self.validation and self.fabric.is_global_zero:
                row = dataclasses.replace(row, val_top1=validate(self.state.trained_ghn, self.validation, self.images))
            record(row)
            if progress.skipped_in_a_row >= self.config.max_skipped:
                roll_back(self.state, self.checkpoints)
            if save:
                self._save(row.val_top1)
        check_skipped(progress, self.checkpoints)
        self.saved_step = progress.step
        if not self.state.is_good:
            path = checkpoint_paths(self.checkpoints)[-1]
            values = read_checkpoint(path)
            self.state.load_weights(values)
            self.saved_step = values["progress"]["step"]
            _logger.warning("the last steps were not good; the trained GHN is that of %s", path.name)

    def step(self, meta_batch: MetaBatch, batch: tuple[Tensor, Tensor], start_time: float) -> LogRow:
        """One step, on all ranks at the same time."""
        config, state, fabric = self.config, self.state, self.fabric
        step, scaler = state.progress.step, state.scaler
        rate = learning_rate(config, step, self.steps_per_epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        scale = 1.0 if scaler is None else scaler.get_scale()
        images, labels = (all_gather(fabric, share) for share in fabric.to_device(batch))
        state.optimizer.zero_grad()
        shares = meta_gradient(
            state.ghn, meta_batch, images, labels, architectures=config.meta_batch, penalty=config.penalty,
            label_smoothing=config.label_smoothing, seed=config.seed, balance=config.balance,
            backward=fabric.backward, autocast=fabric.autocast,
        )  # fmt: skip
        all_reduce_gradients(fabric, state.ghn.parameters())
        loss, top1, *fractions = all_reduce_sum(fabric, shares).tolist()
        not_finite, too_large = (round(fraction * config.meta_batch) for fraction in fractions)
        left_out = not_finite + too_large
        if too_large and (ran := config.meta_batch - too_large):
            loss, top1 = (share * config.meta_batch / ran for share in (loss, top1))
        finite = math.isfinite(loss) and left_out < config.meta_batch
        norm = clip_and_step(state, fabric, config.clip, finite=finite)
        skipped = not math.isfinite(norm)
        record_step(state, loss, config.max_skipped, left_out=too_large, skipped=skipped)
        seconds = time.perf_counter() - start_time
        return LogRow(
            step, step / self.steps_per_epoch, loss, top1, norm, rate, scale, left_out, int(skipped), seconds,
            config.meta_batch,
        )  # fmt: skip

    @property
    def _regular(self) -> bool:
        """Whether only regular checkpoints are written now, not one because the run is stopped."""
        step = self.state.progress.step
        return step % self.config.checkpoint_every == 0 or step == self.length

    @property
    def _is_kept(self) -> bool:
        """Whether the checkpoint of the last step is kept to the end."""
        return bool(self.kept_steps) and self.state.progress.step % self.kept_steps == 0

    def _save(self, val_top1: float = math.nan) -> None:
        """Writes a checkpoint, and the GHN if it is the best one so far."""
        best = self._update_best(val_top1)
        if self.fabric.is_global_zero:
            if best is not None:
                self._write_ghn("best", {"step": str(self.state.progress.step), **best})
            values = {"config": self.config.to_dict(), "data": self.data, **self.state.state_dict()}
            write_checkpoint(self.checkpoints, values, self.config.keep, self.kept_steps)
        barrier(self.fabric)

    def _write_ghn(self, name: str, metadata: dict[str, str] | None = None) -> None:
        write_folder(self.folder / name, self.config.ghn, self.state.trained_ghn.state_dict(), metadata)

    def _update_best(self, val_top1: float) -> dict[str, str] | None:
        """What makes the GHN the best one so far: its accuracy or, without held-out images, its mean loss; else None.

        Only regular checkpoints are compared, so that stopping a run does not change its best GHN. While networks grow,
        losses are not comparable, and the newest GHN is the best one.
        """
        progress = self.state.progress
        if not self._regular or not progress.loss_count:
            return None
        mean = progress.loss_sum / progress.loss_count
        progress.loss_sum, progress.loss_count = 0.0, 0
        growing = progress.step <= self.curriculum.steps and not self.validation
        score = 1 - val_top1 if self.validation else mean
        if growing or progress.best is None or score < progress.best:
            progress.best = None if growing else score
            return {"val_top1": repr(val_top1)} if self.validation else {"loss": repr(mean)}
        return None
