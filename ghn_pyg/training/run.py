"""Meta-training runs: they resume where they were stopped, and nothing tells that they were."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from ..data.images import Images
from ..families.deepnets.curriculum import Curriculum
from ..families.deepnets.dataset import MetaBatch, MetaBatches
from ..models.checkpoints.errors import CheckpointError
from ..models.checkpoints.published_keys import strip_wrappers
from ..models.checkpoints.write import write_folder
from ..models.ghn import GHN
from ..utils.atomic_files import remove_unfinished
from .checkpoints import Progress, checkpoint_paths, read_training_checkpoint, write_checkpoint
from .config import TrainConfig
from .fabric import (
    SMALLEST_SCALE,
    ProcessLostError,
    add_up,
    agree,
    everywhere,
    join_gradients,
    join_images,
    make_fabric,
    scaler_of,
    together,
)
from .image_stream import ImageBatches, run_images
from .logs import CSVLog, LogRow, TensorBoardLog
from .run_folder import TrainingError, check_same_run, differences, occupy, write_config
from .schedules import average_decay, learning_rate
from .seeds import restored
from .start_weights import first_ghn
from .step import meta_gradient

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOG_FILE = "log.csv"
BOARD = "tensorboard"

_logger = logging.getLogger(__name__)


def train(
    config: TrainConfig, folder: str | os.PathLike[str], *, fabric: Fabric | None = None, images: Images | None = None,
    steps: int | None = None, workers: int = 0, progress: Callable[[LogRow], None] = lambda row: None,
) -> GHN:  # fmt: skip
    """Meta-trains a GHN, or goes on with a run that was stopped.

    The folder holds the configuration (``train.json``), a row for each step (``log.csv``, and for
    TensorBoard), the last ``checkpoints/``,
    the GHN with the lowest mean loss between two checkpoints (``best/``) and at the end the trained one (``ghn/``).
    On several machines it must be one that they share.

    Args:
        config: The run.
        folder: Where the run lies; made if missing.
        fabric: The engine; by default one for the configuration's precision.
        images: The image data; by default as the configuration says.
        steps: Stops after so many steps in all, before the end of the last epoch; the run can be gone on with.
        workers: Processes that make architectures, and as many that read images.
        progress: Called with each row of the log, on the first rank.

    Returns:
        The GHN, in evaluation mode.

    Raises:
        TrainingError: If the folder holds another run, another process trains in it, the configuration does not fit
            the data or the processes, losses stay infinite or NaN after all roll-backs, or another process ends.
        CheckpointError: If a checkpoint cannot be written or read.
        OSError: If the folder cannot be written or locked.
        ImportError: If Lightning Fabric is missing.

    Example:
        >>> ghn = train(load_config("ghn3-t-cifar10"), "runs/ghn3-t")  # doctest: +SKIP
    """
    fabric = fabric or make_fabric(config.precision)
    with fabric.rank_zero_first() if config.download else contextlib.nullcontext():
        images = images or run_images(config, config.augment)
    with restored(fabric.device):
        run = Run(config, Path(folder), fabric, images)
        try:
            run.go(run.length if steps is None else min(steps, run.length), workers, progress)
        except ProcessLostError as error:
            raise TrainingError(
                f"step {run.progress.step}: another process of the run ended, or cannot be reached ({error}); start "
                f"the same command again to go on from the last checkpoint in {run.checkpoints}"
            ) from error
    return run.trained.eval()


class Run:
    """A run and where it stands.

    Args:
        config: The run.
        folder: Where it lies.
        fabric: The engine.
        images: The image data.

    Attributes:
        ghn: The GHN.
        progress: How far the run is.
        length: Steps of the whole run.
    """

    def __init__(self, config: TrainConfig, folder: Path, fabric: Fabric, images: Images) -> None:
        self.config = config
        self.folder = folder
        self.fabric = fabric
        self.images = images
        self.progress = Progress()
        self._check()
        self.length = config.epochs * self.images_from(0).steps_per_epoch
        self.found = checkpoint_paths(self.checkpoints)
        first = GHN(config.ghn) if self.found else first_ghn(config, images)
        self.ghn = first.to(fabric.device).train()
        agree(fabric, self.ghn)
        if config.compile:
            self.ghn.encoder.compile()  # in place, so that all names stay
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        self.scaler = scaler_of(fabric)
        # All in one pass over the weights, which is 5 times faster; with a scaler Fabric could not clip gradients.
        self.fused = self.scaler is None
        optimizer = kind(
            self.ghn.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=self.fused
        )
        self.optimizer: Any = fabric.setup_optimizers(optimizer)
        self.average = AveragedModel(self.ghn, multi_avg_fn=self._average) if config.ema else None
        if self.found:
            self.progress = self.load(self.found[-1])
        starts = everywhere(fabric, self.progress.step if self.found else -1)
        if len(set(starts)) > 1:
            raise TrainingError(
                f"the processes found different checkpoints in {folder}, of the steps {', '.join(map(str, starts))} "
                "(-1 is none); it must be one folder that all machines share"
            )

    def _average(self, averages: Any, weights: Any, steps: Tensor | int) -> None:
        torch._foreach_lerp_(averages, weights, 1 - average_decay(self.config.ema, int(steps)))

    @property
    def trained(self) -> GHN:
        """The GHN, or its average over the steps so far."""
        return self.ghn if self.average is None else cast(GHN, self.average.module)

    @property
    def curriculum(self) -> Curriculum:
        """How networks grow."""
        return Curriculum(round(self.config.curriculum * self.length))

    @property
    def data(self) -> str:
        """What the run must find whenever it goes on."""
        images = self.images
        return f"{images.name.lower()}, {len(images.train):,} images of {images.num_classes:,} classes"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    def _check(self) -> None:
        """Raises an error for what would go wrong later."""
        config, ranks = self.config, self.fabric.world_size
        if config.ghn.num_classes != self.images.num_classes:
            raise TrainingError(
                f"the GHN is for {config.ghn.num_classes} classes and {self.images.name} has "
                f"{self.images.num_classes}; set ghn.num_classes to it"
            )
        if config.meta_batch < ranks:
            raise TrainingError(f"meta_batch must be at least {ranks}, one for each process, got {config.meta_batch}")
        try:
            self.images_from(0)
            check_same_run(self.folder, config)
        except ValueError as error:
            raise TrainingError(str(error)) from error

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
            rank=self.fabric.global_rank, world_size=self.fabric.world_size,
            curriculum=self.curriculum, device=self.fabric.device.type,
        )  # fmt: skip

    def batches(self, workers: int) -> Iterator[tuple[MetaBatch, tuple[Tensor, Tensor]]]:
        """Architectures and images from the next step on."""
        streams = (self.architectures_from(self.progress.step), self.images_from(self.progress.step))
        loaders = [DataLoader(stream, batch_size=None, num_workers=workers) for stream in streams]
        return zip(*loaders, strict=True)

    def go(self, stop: int, workers: int, report: Callable[[LogRow], None]) -> None:
        """Trains until the step ``stop``."""
        with together(self.fabric):
            self.fabric.barrier()  # nobody reads the folder any more
        if not self.fabric.is_global_zero:
            self.steps(stop, workers, lambda row: None)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with occupy(self.folder):
            self._check()
            if checkpoint_paths(self.checkpoints) != self.found:
                raise TrainingError(
                    f"another process has gone on with the run in {self.folder} meanwhile; start the same command again"
                )
            self.keep(stop, workers, report)

    def keep(self, stop: int, workers: int, report: Callable[[LogRow], None]) -> None:
        """Trains until the step ``stop`` and writes the log, on the first rank."""
        for inner in (self.folder, self.checkpoints, self.folder / "best", self.folder / "ghn"):
            remove_unfinished(inner)
        write_config(self.folder, self.config)
        if self.progress.step:
            _logger.info("going on with step %d", self.progress.step)
        start = self.progress.step
        with CSVLog(self.folder / LOG_FILE, start) as log, TensorBoardLog(self.folder / BOARD, start) as board:

            def note(row: LogRow) -> None:
                log.write(row)
                board.write(row)
                report(row)

            self.steps(stop, workers, note)
        write_folder(self.folder / "ghn", self.config.ghn, strip_wrappers(self.trained.state_dict()))

    def steps(self, stop: int, workers: int, note: Callable[[LogRow], None]) -> None:
        """All steps before ``stop``, with checkpoints between and after them."""
        if not self.progress.step:
            self.save()
        batches = self.batches(workers)
        while self.progress.step < stop:
            began = time.perf_counter()
            note(self.step(*next(batches), began))
            if self.progress.skipped_in_a_row >= self.config.max_skipped:
                self.roll_back()
            due = self.progress.step % self.config.checkpoint_every == 0 or self.progress.step == stop
            # Amid bad steps there is nothing good to keep: it would take the place of a checkpoint to roll back to.
            if due and not self.progress.skipped_in_a_row and not self.progress.rollbacks_in_a_row:
                self.save()

    def step(self, meta_batch: MetaBatch, batch: tuple[Tensor, Tensor], began: float) -> LogRow:
        """One step, of which all ranks do their part; it began when its data were asked for."""
        step, config = self.progress.step, self.config
        per_epoch = self.length // config.epochs
        rate = learning_rate(config, step, per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        scale = self.scaler.get_scale() if self.scaler is not None else 1.0
        images, labels = join_images(self.fabric, *self.fabric.to_device(batch))
        self.optimizer.zero_grad()
        share = meta_gradient(
            self.ghn, meta_batch, images, labels, architectures=config.meta_batch, penalty=config.penalty,
            label_smoothing=config.label_smoothing, seed=config.seed, balance=config.balance,
            backward=self.fabric.backward, autocast=self.fabric.autocast,
        )  # fmt: skip
        join_gradients(self.fabric, self.ghn.parameters())
        loss, top1, left_out = add_up(self.fabric, share).tolist()
        norm = self.update(usable=math.isfinite(loss) and left_out < 1)
        good = math.isfinite(norm)
        self.count(loss, good)
        seconds = time.perf_counter() - began
        return LogRow(
            step, step / per_epoch, loss, top1, norm, rate, scale, round(left_out * config.meta_batch), int(not good),
            seconds, config.meta_batch,
        )  # fmt: skip

    def update(self, usable: bool) -> float:
        """Lets the optimizer take a step, unless a number is not finite; returns the norm of the gradient."""
        if not usable:
            # So that the norm is not finite either, on any rank.
            for parameter in self.ghn.parameters():
                cast(Tensor, parameter.grad).fill_(math.nan)
        found: Any = self.fabric.clip_gradients(
            self.ghn, self.optimizer, max_norm=self.config.clip or math.inf, error_if_nonfinite=False
        )
        norm = float(found)
        if math.isfinite(norm):
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.ghn)
        elif self.scaler is not None:
            # By itself it would take the step where gradients are finite and only their norm overflows.
            self.scaler.load_state_dict({**self.scaler.state_dict(), "_growth_tracker": 0})
            self.scaler.update(max(self.scaler.get_scale() * self.scaler.get_backoff_factor(), SMALLEST_SCALE))
        return norm

    def count(self, loss: float, good: bool) -> None:
        """Keeps account of a step."""
        progress = self.progress
        progress.step += 1
        if good:
            progress.skipped_in_a_row = progress.rollbacks_in_a_row = 0
            progress.loss_sum += loss
            progress.loss_count += 1
        else:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
            _logger.warning("step %d skipped: its loss or gradient is not finite", progress.step - 1)

    def save(self) -> None:
        """Writes a checkpoint, and the GHN if it is the best one so far."""
        loss = self.judge()
        if self.fabric.is_global_zero:
            if loss is not None:
                metadata = {"step": str(self.progress.step), "loss": repr(loss)}
                write_folder(self.folder / "best", self.config.ghn, strip_wrappers(self.trained.state_dict()), metadata)
            write_checkpoint(self.checkpoints, self.state(), self.config.keep)
        with together(self.fabric):
            self.fabric.barrier()

    def judge(self) -> float | None:
        """The mean loss since the last checkpoint, if it is the lowest one so far.

        A run that is stopped between checkpoints is not judged there, so that stopping changes nothing. While networks
        grow, losses cannot be compared, and the newest GHN is the best one.
        """
        progress, config = self.progress, self.config
        whole = progress.step % config.checkpoint_every == 0 or progress.step == self.length
        if not whole or not progress.loss_count:
            return None
        mean = progress.loss_sum / progress.loss_count
        progress.loss_sum, progress.loss_count = 0.0, 0
        growing = progress.step <= self.curriculum.steps
        if growing or progress.best is None or mean < progress.best:
            progress.best = None if growing else mean
            return mean
        return None

    def state(self) -> dict[str, Any]:
        """All that the run needs to go on."""
        return {
            "config": self.config.to_dict(),
            "data": self.data,
            "ghn": self.ghn.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler is not None else {},
            "progress": dataclasses.asdict(self.progress),
        }

    def load(self, path: Path) -> Progress:
        """Takes weights, optimizer and scaler from a checkpoint; returns how far the run was."""
        state = read_training_checkpoint(path)
        try:
            if odd := differences(state["config"], self.config):
                raise ValueError(f"it differs in {', '.join(odd)}")
            if state["data"] != self.data:
                raise ValueError(f"it was trained on {state['data']}, not on {self.data}")
            progress = Progress(**state["progress"])
            self.ghn.load_state_dict(state["ghn"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            # A run may move between a GPU and a CPU, on which 16-mixed has no scaler.
            groups = [{**group, "fused": self.fused} for group in state["optimizer"]["param_groups"]]
            self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
            if self.scaler is not None and state["scaler"]:
                self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the checkpoint {path} is of another run: {error}") from error
        return progress

    def roll_back(self) -> None:
        """Takes the last checkpoint's weights and goes on with new data; the next time, those of the one before."""
        paths, back = checkpoint_paths(self.checkpoints), self.progress.rollbacks_in_a_row
        if back >= len(paths):
            raise TrainingError(
                f"step {self.progress.step}: no loss and gradient is finite any more, from none of the {len(paths)} "
                f"checkpoints in {self.checkpoints} on; lower learning_rate, or keep more checkpoints"
            )
        self.load(paths[-1 - back])
        self.progress.skipped_in_a_row = 0
        self.progress.loss_sum, self.progress.loss_count = 0.0, 0  # those of weights that are given up
        self.progress.rollbacks += 1
        self.progress.rollbacks_in_a_row += 1
        _logger.warning("rolled back to %s, going on with step %d", paths[-1 - back].name, self.progress.step)
