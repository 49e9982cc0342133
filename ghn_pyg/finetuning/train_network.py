"""Trains one network."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from ..data.images import Images
from ..training.fabric import check_lightning
from ..training.image_stream import ImageBatches
from ..training.seeds import reseed, restored
from .config import FitConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_MOMENTUM: Final = 0.9
_MIX: Final = 0x313


class Epoch(NamedTuple):
    """What came of an epoch of training: its number from 1 on, the mean loss, what it took, and each step's loss."""

    epoch: int
    loss: float
    seconds: float
    losses: tuple[float, ...] = ()


def fit(
    network: nn.Module, images: Images, config: FitConfig, *, fabric: Fabric, workers: int = 0,
    progress: Callable[[Epoch], None] = lambda epoch: None,
) -> nn.Module:  # fmt: skip
    """Trains a network, from the values that its parameters have.

    The same network, images, configuration and number of threads give the same result. PyTorch's global random
    generators end as they began.

    Args:
        network: Gives logits of shape (B, K), or begins with them what it gives, as networks with auxiliary
            classifiers do, which are not trained. It is changed in place.
        images: The image data.
        config: How to train.
        fabric: The engine, which knows device and precision; see :func:`~ghn_pyg.training.fabric.make_fabric`.
        workers: Processes that read images.
        progress: Called after each epoch; it may evaluate the network.

    Returns:
        ``network``, in evaluation mode and on the device.

    Raises:
        ValueError: If a batch is larger than the data.
        FloatingPointError: If losses are not finite; the network is of no use then.
        ImportError: If the optimizer needs a package that is missing.

    Example:
        >>> from ghn_pyg.data.images import load_images
        >>> from ghn_pyg.training.fabric import make_fabric
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
        >>> digits = load_images("digits", image_size=8)
        >>> network = fit(network, digits, FitConfig(epochs=2), fabric=make_fabric(device="cpu"))
    """
    check_fit(images, config)
    batches = ImageBatches(images.train, config.batch_size, seed=config.seed)
    steps = batches.steps_per_epoch
    network.to(fabric.device)
    optimizer = make_optimizer(network, config)
    wrapped: Any = fabric.setup_optimizers(optimizer)
    augment, mix = _augmentation(config, images), _mixing(config, images.num_classes)
    with restored(fabric.device):
        stream = iter(DataLoader(batches, batch_size=None, num_workers=workers))
        for epoch in range(1, config.epochs + 1):
            start, losses = time.perf_counter(), []
            network.train()
            for step in range((epoch - 1) * steps, epoch * steps):
                reseed(fabric.device, config.seed, _MIX, step)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config, step, steps)
                pixels, labels = next(stream)
                inputs, labels = mix(*fabric.to_device((augment(pixels), labels)))
                wrapped.zero_grad()
                with fabric.autocast():
                    outputs = network(inputs)
                logits = outputs if isinstance(outputs, Tensor) else outputs[0]
                loss = fit_loss(logits.float(), labels, config)
                fabric.backward(loss)
                if config.clip:
                    fabric.clip_gradients(network, wrapped, max_norm=config.clip, error_if_nonfinite=False)
                wrapped.step()
                losses.append(loss.detach())
            every = torch.stack(losses)
            mean = every.mean().item()
            if not math.isfinite(mean):
                raise FloatingPointError(f"losses are not finite in epoch {epoch}; lower the learning rate")
            progress(Epoch(epoch, mean, time.perf_counter() - start, tuple(every.tolist())))
    return network.eval()


def check_fit(images: Images, config: FitConfig) -> None:
    """Raises the errors of :func:`fit` for what does not depend on the network.

    Example:
        >>> from ghn_pyg.data.images import load_images
        >>> check_fit(load_images("digits"), FitConfig())
    """
    check_lightning()
    ImageBatches(images.train, config.batch_size)
    make_optimizer(nn.LayerNorm(1), config)  # any network that draws nothing


def fit_loss(logits: Tensor, labels: Tensor, config: FitConfig) -> Tensor:
    """The loss of a batch.

    Args:
        logits: Of shape (B, K).
        labels: Classes of shape (B,), or shares of classes of shape (B, K).
        config: How to train.

    Example:
        >>> fit_loss(torch.zeros(2, 5), torch.tensor([0, 3]), FitConfig(loss="binary"))
        tensor(0.6931)
    """
    if config.loss == "cross-entropy":
        return F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
    classes = logits.size(1)
    shares = F.one_hot(labels, classes).to(logits) if labels.dim() == 1 else labels.to(logits)
    shares = shares * (1 - config.label_smoothing) + config.label_smoothing / classes
    return F.binary_cross_entropy_with_logits(logits, shares)


def learning_rate(config: FitConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, from 0 on.

    Example:
        >>> config = FitConfig(epochs=4, warmup_epochs=2, learning_rate=0.5)
        >>> [learning_rate(config, step, 3) for step in (0, 5, 9)]
        [0.08333333333333333, 0.5, 0.25]
    """
    epoch = step / steps_per_epoch
    if epoch < config.warmup_epochs:
        return config.learning_rate * (step + 1) / math.ceil(config.warmup_epochs * steps_per_epoch)
    rest = config.epochs - config.warmup_epochs
    return config.learning_rate * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / rest)) / 2


def make_optimizer(network: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """The optimizer of a configuration; the weight decay leaves norms, biases and other vectors alone."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in parameters if one.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [one for one in parameters if one.dim() < 2], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=_MOMENTUM, nesterov=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.learning_rate)
    try:
        lamb = importlib.import_module("timm.optim").Lamb
    except ImportError as error:
        raise ImportError('the optimizer LAMB needs timm; install it with: pip install "ghn_pyg[train]"') from error
    # Gradients are clipped here, as for the others.
    found: torch.optim.Optimizer = lamb(groups, lr=config.learning_rate, max_grad_norm=None)
    return found


def _augmentation(config: FitConfig, images: Images) -> Callable[[Tensor], Tensor]:
    """What is done with each image of a batch, besides the image data's own augmentation."""
    if not config.randaugment:
        return lambda pixels: pixels
    change = v2.RandAugment(magnitude=config.randaugment)
    mean, std = (torch.tensor(colours).view(3, 1, 1) for colours in (images.mean, images.std))

    def augment(pixels: Tensor) -> Tensor:
        whole = (pixels * std + mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
        return (torch.stack([change(image) for image in whole]) / 255 - mean) / std

    return augment


def _mixing(config: FitConfig, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What is done with each batch."""
    kinds = ((v2.MixUp, config.mixup), (v2.CutMix, config.cutmix))
    used = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha]
    return v2.RandomChoice(used) if used else lambda images, labels: (images, labels)
