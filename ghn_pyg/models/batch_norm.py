"""Running statistics of batch norms, which are stale after a prediction: bypassed, or recalibrated."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .write_checks import check_writable

_STATISTICS: Final = ("running_mean", "running_var", "num_batches_tracked")


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """In this context batch norms use the statistics of the batch, and leave their running statistics alone.

    Published evaluations use batches of 64 shuffled images this way.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
        >>> with batch_statistics(network):
        ...     logits = network(torch.randn(8, 3, 5, 5))
        >>> network[1].training, network[1].num_batches_tracked.item()
        (False, 0)
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    with _restored(norms, "training", "track_running_stats", "running_mean", "running_var"):
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
            norm.running_mean = norm.running_var = None
        yield model


def recalibrate(model: nn.Module, batches: Iterable[Any], count: int = 10, device: Any = None) -> nn.Module:
    """Recalibrates running statistics in place: each becomes the average of the statistics of a few batches.

    Everything but the batch norms runs in evaluation mode, without dropout, say. Norms without running statistics, as
    those of DeepNets-1M, get them. Norms that no batch reaches keep their statistics; after an error all do.

    Args:
        model: The network.
        batches: Batches of inputs, or (input, target) pairs as a data loader gives them.
        count: Largest number of batches to use.
        device: Where to move the inputs.

    Raises:
        TypeError: If ``batches`` is a tensor, or a batch is a dictionary.
        ValueError: If there is no batch, or statistics cannot be written.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
        >>> network = recalibrate(network, [torch.randn(8, 3, 5, 5), torch.randn(8, 3, 5, 5)])
        >>> network[1].num_batches_tracked.item()
        2
    """
    if isinstance(batches, Tensor):
        raise TypeError(
            f"recalibrate expected batches, such as a data loader or a list of them, got one tensor of shape "
            f"{tuple(batches.shape)}; put it into a list"
        )
    modules = list(model.modules())
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    buffers = {
        f"{path}.{name}" if path else name: getattr(module, name)
        for path, module in model.named_modules()
        for name in _STATISTICS
        if module in norms and getattr(module, name) is not None
    }
    check_writable(model, buffers)
    used = 0
    with _restored(modules, "training"), _restored(norms, "momentum", "track_running_stats", *_STATISTICS):
        for module in modules:
            module.training = False
        for norm in norms:
            norm.training, norm.track_running_stats, norm.momentum = True, True, None  # None: a plain average
            known = norm.running_mean if norm.running_mean is not None else norm.weight
            like = known if known is not None else next(model.parameters(), torch.empty(0))
            mean = like.new_zeros(norm.num_features)
            norm.running_mean, norm.running_var = mean, torch.ones_like(mean)
            norm.num_batches_tracked = mean.new_zeros((), dtype=torch.long)
        for batch in itertools.islice(batches, count):
            _run(model, batch, device)
            used += 1
        statistics = [[getattr(norm, name) for name in _STATISTICS] for norm in norms]
    if not used:
        raise ValueError("recalibrate expected at least one batch, got none")
    for norm, values in zip(norms, statistics, strict=True):
        if not values[-1]:  # no batch has reached it
            continue
        if norm.running_mean is None:
            norm.track_running_stats = True
            norm.running_mean, norm.running_var, norm.num_batches_tracked = values
            continue
        for name, value in zip(_STATISTICS, values, strict=True):
            if (buffer := getattr(norm, name)) is not None:
                buffer.copy_(value)
    return model


@torch.no_grad()
def _run(model: nn.Module, batch: Any, device: Any) -> None:
    if isinstance(batch, Mapping):
        raise TypeError(
            f"recalibrate expected batches of inputs or (inputs, target) pairs, got a dictionary with "
            f"{', '.join(map(repr, batch))}; pick the inputs, as in (batch['image'] for batch in loader)"
        )
    inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
    model(inputs if device is None else inputs.to(device))


@contextlib.contextmanager
def _restored(modules: Sequence[nn.Module], *names: str) -> Iterator[None]:
    """Restores attributes of modules when the context ends."""
    before = [[getattr(module, name) for name in names] for module in modules]
    try:
        yield
    finally:
        for module, values in zip(modules, before, strict=True):
            for name, value in zip(names, values, strict=True):
                setattr(module, name, value)
