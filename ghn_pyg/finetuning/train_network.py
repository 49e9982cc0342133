"""Training of one network."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data import Images
from ..training.checkpoints import lock_folder
from ..training.distributed import (
    all_gather,
    all_reduce_gradients,
    all_reduce_sum,
    barrier,
    broadcast_weights,
    collective,
)  # fmt: skip
from ..training.fabric import check_lightning
from ..training.image_batches import ImageBatches
from ..training.learning_rate import scheduled_rate
from ..training.logs import RunLog
from ..training.seeds import preserve_rng, seed_rng
from ..utils.atomic_files import remove_unfinished
from ..utils.optional import require
from .augmentation import AugmentedImages, mixing
from .config import FitConfig
from .drop_path import drop_path_blocks, set_drop_path
from .state import CHECKPOINTS, Epoch, FitState, read_last
from .whole_batch import WholeBatch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_Value = TypeVar("_Value")
_MOMENTUM: Final = 0.9
_MIX: Final = 0x313  # sets the random numbers of mixup and dropout apart from those of the images


def fit(
    network: nn.Module, images: Images, config: FitConfig, *, fabric: Fabric, workers: int = 0,
    folder: str | os.PathLike[str] | None = None, settings: Mapping[str, Any] | None = None,
    measure: Callable[[int], tuple[float, float]] | None = None, progress: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> nn.Module:  # fmt: skip
    """Trains a network from its current parameters.

    The same network, images, configuration and number of threads give the same result. PyTorch's global random
    generators stay unchanged.

    On several processes, as ``torchrun`` starts them, each trains on its part of every batch. All call this function
    with the same arguments, and the result is that of one process, but for rounding and where
    :class:`~ghn_pyg.finetuning.whole_batch.WholeBatch` says so. Rank 0 writes; a run may go on with another number of
    processes.

    With a ``folder``, a run that was stopped at any moment goes on after its last complete epoch, with the same result
    as without a stop. The folder gets a checkpoint after each epoch and the log: ``log.csv``, and ``tensorboard/`` if
    TensorBoard is installed.

    Args:
        network: Returns logits of shape (B, K), or a tuple or dictionary that begins with them. In training
            mode, logits of auxiliary classifiers may follow. It is changed in place.
        images: The image data.
        config: How to train.
        fabric: The engine, with device and precision; see :func:`~ghn_pyg.training.fabric.make_fabric`.
        workers: Number of processes that read images.
        folder: Folder of the run, created if missing; by default nothing is written.
        settings: Other plain values by name that a run to resume must have in common with this one, such as the name
            of the network.
        measure: Called with the number of each epoch after it, and with 0 before the first one; returns the network's
            accuracies on held-out and on test images, for the log.
        progress: Called after each epoch, and for the epochs that a resumed run had done. It may evaluate the network.
        on_step: Called after each step with its number, from 1 on, and its loss on this process's images.

    Returns:
        ``network``, in evaluation mode and on the device.

    Raises:
        ValueError: If a batch is larger than the data or no multiple of the number of processes, there is ``patience``
            without ``measure``, the network has no parameters to train, or it lacks the drop path or the auxiliary
            classifiers that the configuration sets.
        TrainingError: If the folder has another run, or another process trains in it.
        CheckpointError: If a checkpoint cannot be written or read.
        FloatingPointError: If losses are not finite; the network is useless then.
        ImportError: If the optimizer needs a package that is not installed.

    Example:
        >>> from ghn_pyg.data import load_images
        >>> from ghn_pyg.training.fabric import make_fabric
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
        >>> digits = load_images("digits", image_size=8)
        >>> network = fit(network, digits, FitConfig(epochs=2), fabric=make_fabric(device="cpu"))
    """
    check_fit(images, config, fabric.world_size)
    check_network(network, images, config)
    if config.patience and measure is None:
        raise ValueError(f"patience expected 0 without measure, got {config.patience}")
    train: Any = AugmentedImages(images, config)
    batches = ImageBatches(
        train, config.batch_size, seed=config.seed, rank=fabric.global_rank, world_size=fabric.world_size
    )
    if config.drop_path is not None:
        set_drop_path(network, config.drop_path)
    network.to(fabric.device)
    broadcast_weights(fabric, network)
    optimizer: Any = fabric.setup_optimizers(make_optimizer(network, config))
    data = f"{images.name.lower()}, {len(images.train):,} images of {images.num_classes:,} classes"
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    state = FitState(network, optimizer, scaler, config, {"data": data, **(settings or {})})
    folder = None if folder is None else Path(folder)

    def accuracies(epoch: int) -> tuple[float, ...]:  # of rank 0, so that all ranks stop after the same epoch
        return _from_rank_0(fabric, () if measure is None else measure(epoch))

    with preserve_rng(fabric.device), _opened(state, folder, fabric) as record:
        if measure is not None and not state.epochs:
            record(Epoch(0, math.nan, math.nan, 0.0, *accuracies(0)))
        for epoch in state.epochs:
            progress(epoch)
        batches.first_step = state.done * batches.steps_per_epoch
        stream = iter(DataLoader(batches, batch_size=None, num_workers=workers))
        while not state.is_complete:
            network.train()
            figures = _train_epoch(state, stream, images, fabric, batches.steps_per_epoch, on_step)
            number = state.done + 1
            epoch = Epoch(number, *figures, *accuracies(number))
            record(epoch)
            if config.patience and epoch == state.best_epoch:
                state.best = copy.deepcopy(network.state_dict())
            progress(epoch)
            if folder is not None and fabric.is_global_zero:
                state.save(folder, number * batches.steps_per_epoch)
        if config.patience:
            network.load_state_dict(state.best)
    return network.eval()


@contextlib.contextmanager
def _opened(state: FitState, folder: Path | None, fabric: Fabric) -> Iterator[Callable[[Epoch], None]]:
    """Loads the last checkpoint of a folder, if there is one, and yields a function that logs an epoch."""
    if folder is None:
        yield state.epochs.append
        return
    with lock_folder(folder) if fabric.is_global_zero else contextlib.nullcontext():
        barrier(fabric)  # rank 0 has the lock
        if values := _from_rank_0(fabric, read_last(folder) if fabric.is_global_zero else {}):
            state.load(folder, values)
        if not fabric.is_global_zero:
            yield state.epochs.append
            return
        for unfinished in (folder, folder / CHECKPOINTS):
            remove_unfinished(unfinished)
        with RunLog(folder, state.done + 1 if state.epochs else 0, Epoch) as log:

            def record(epoch: Epoch) -> None:
                state.epochs.append(epoch)
                log.write(epoch)

            yield record


def _from_rank_0(fabric: Fabric, value: _Value) -> _Value:
    with collective(fabric):
        return fabric.broadcast(value)


def _train_epoch(
    state: FitState, stream: Iterator[tuple[Tensor, Tensor]], images: Images, fabric: Fabric, steps: int,
    on_step: Callable[[int, Tensor], None] | None,
) -> tuple[float, float, float]:  # fmt: skip
    """Mean loss of the next epoch, its last learning rate, and its duration in seconds."""
    config, network, optimizer = state.config, state.network, state.optimizer
    mix, rank, ranks = mixing(config, images.num_classes), fabric.global_rank, fabric.world_size
    whole_batch = WholeBatch(fabric, config.batch_size // ranks) if ranks > 1 else contextlib.nullcontext()
    start_time, losses = time.perf_counter(), []
    for step in range(state.done * steps, (state.done + 1) * steps):
        seed_rng(fabric.device, config.seed, _MIX, step)  # the same on all ranks
        rate = fit_learning_rate(config, step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = fabric.to_device(next(stream))
        if mix is not None:
            inputs, labels = mix(*(all_gather(fabric, part) for part in batch))
            batch = inputs.chunk(ranks)[rank], labels.chunk(ranks)[rank]
        optimizer.zero_grad()
        with fabric.autocast(), whole_batch:
            outputs = network(batch[0])
        loss = fit_loss(first_output(outputs).float(), batch[1], config)
        if config.auxiliary:
            others = [fit_loss(logits.float(), batch[1], config) for logits in auxiliary_outputs(outputs)]
            loss = loss + config.auxiliary * torch.stack(others).sum()
        fabric.backward(loss / ranks)
        _sum_gradients(fabric, network)
        if config.clip:
            fabric.clip_gradients(network, optimizer, max_norm=config.clip, error_if_nonfinite=False)
        optimizer.step()
        losses.append(loss.detach())
        if on_step is not None:
            on_step(step + 1, losses[-1])
    mean = all_reduce_sum(fabric, torch.stack(losses).mean() / ranks).item()
    if not math.isfinite(mean):
        raise FloatingPointError(f"losses are not finite in epoch {state.done + 1}; lower the learning rate")
    return mean, rate, time.perf_counter() - start_time


def _sum_gradients(fabric: Fabric, network: nn.Module) -> None:
    """Sums gradients over all ranks. Parameters that no rank has used get none."""
    if fabric.world_size > 1:
        parameters = [*network.parameters()]
        used = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int)
        used = all_reduce_sum(fabric, used.to(fabric.device))
        all_reduce_gradients(fabric, [each for each, count in zip(parameters, used.tolist(), strict=True) if count])


def first_output(outputs: Any) -> Tensor:
    """The logits: the outputs of a network, or the first one."""
    logits: Tensor = _listed(outputs)[0]
    return logits


def auxiliary_outputs(outputs: Any) -> list[Tensor]:
    """The logits of auxiliary classifiers: further outputs of the same shape as the logits."""
    logits, *others = _listed(outputs)
    return [output for output in others if isinstance(output, Tensor) and output.shape == logits.shape]


def _listed(outputs: Any) -> list[Any]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [*(outputs.values() if isinstance(outputs, Mapping) else outputs)]


def check_network(network: nn.Module, images: Images, config: FitConfig) -> None:
    """Raises a ValueError if all of a network is frozen, or it lacks what the configuration sets."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError("expected a network with parameters to train, but all are frozen (requires_grad is False)")
    if config.drop_path and not drop_path_blocks(network):
        raise ValueError(
            f"drop_path expected none for a network without residual branches to drop, got {config.drop_path}"
        )
    if config.auxiliary:
        parameter = next(network.parameters())
        pixels = parameter.new_zeros(2, 3, images.image_size, images.image_size)
        with preserve_rng(parameter.device), torch.no_grad():
            outputs = copy.deepcopy(network).train()(pixels)
        if not auxiliary_outputs(outputs):
            raise ValueError(f"auxiliary expected 0 for a network without such classifiers, got {config.auxiliary}")


def check_fit(images: Images, config: FitConfig, ranks: int = 1) -> None:
    """Raises those errors of :func:`fit` that do not depend on the network."""
    check_lightning()
    ImageBatches(images.train, config.batch_size, world_size=ranks)
    make_optimizer(nn.LayerNorm(1), config)  # any network without random weights


def fit_learning_rate(config: FitConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step."""
    return scheduled_rate(
        step, schedule=config.schedule, peak=config.learning_rate, steps=config.epochs * steps_per_epoch,
        warmup_steps=config.warmup_epochs * steps_per_epoch,
        milestones=[epoch * steps_per_epoch for epoch in config.milestones],
    )  # fmt: skip


def fit_loss(logits: Tensor, labels: Tensor, config: FitConfig) -> Tensor:
    """The loss of logits of shape (B, K) for classes of shape (B,) or class probabilities of shape (B, K)."""
    if config.loss == "cross-entropy":
        return F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
    classes = logits.size(1)
    targets = F.one_hot(labels, classes).to(logits) if labels.dim() == 1 else labels.to(logits)
    targets = targets * (1 - config.label_smoothing) + config.label_smoothing / classes
    return F.binary_cross_entropy_with_logits(logits, targets)


def make_optimizer(network: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """The optimizer of a configuration. Biases, norms and other vectors have no weight decay."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [tensor for tensor in parameters if tensor.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [tensor for tensor in parameters if tensor.dim() < 2], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=_MOMENTUM, nesterov=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.learning_rate)
    timm = require("timm.optim", extra="train", purpose="steps of LAMB")
    optimizer: torch.optim.Optimizer = timm.Lamb(groups, lr=config.learning_rate, max_grad_norm=None)  # clipped above
    return optimizer
