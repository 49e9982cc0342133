"""The only place that writes into a user's network: its parameters, and its batch-norm statistics on request."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from .data import ArchData


def destinations(model: nn.Module, graph: ArchData) -> dict[str, Tensor]:
    """The tensors of ``model`` that the parameters of ``graph`` are written into.

    Raises:
        ValueError: If the graph belongs to another network: a name or shape differs. Nothing is written.
    """
    if graph.get("ptr") is not None:
        raise ValueError("expected the graph of one network, got a batch; call predict for several networks")
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for spec in itertools.chain.from_iterable(graph.params):
        parameter = parameters.get(spec.name)
        if parameter is None or parameter.shape != spec.shape:
            came = "no such parameter" if parameter is None else f"shape {tuple(parameter.shape)}"
            raise ValueError(
                f"the graph was built from another network: {spec.name} has shape {spec.shape} in the graph, and "
                f"{type(model).__name__} has {came}; build the graph from this network"
            )
        if parameter.is_meta:
            raise ValueError(
                f"{spec.name} is on the meta device and has no memory to write into; call "
                "model.to_empty(device=...) first, or use predict() and functional_call"
            )
    return parameters


def load_prediction(model: nn.Module, prediction: Mapping[str, Tensor]) -> nn.Module:
    """Copies predicted parameters into a network, after all names and shapes are checked.

    Args:
        model: The network.
        prediction: Predicted parameters by name; others keep their values.

    Returns:
        ``model``.

    Raises:
        ValueError: If a name or shape does not belong to ``model``. Nothing is written then.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, value in prediction.items():
        if name not in parameters or parameters[name].shape != value.shape:
            came = f"shape {tuple(parameters[name].shape)}" if name in parameters else "no such parameter"
            raise ValueError(
                f"the prediction is for another network: {name} has shape {tuple(value.shape)} in the prediction, "
                f"and {type(model).__name__} has {came}"
            )
        if parameters[name].is_meta:
            raise ValueError(
                f"{name} is on the meta device and has no memory to write into; call model.to_empty(device=...) first"
            )
    with torch.no_grad():
        for name, value in prediction.items():
            parameters[name].copy_(value)
    return model


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Inside this context batch norms use the statistics of the batch and leave their running statistics alone.

    After a prediction running statistics are stale; published evaluations use batches of 64 shuffled images this way.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
        >>> with batch_statistics(network):
        ...     logits = network(torch.randn(8, 3, 5, 5))
        >>> network[1].training, network[1].num_batches_tracked.item()
        (False, 0)
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.training, norm.track_running_stats, norm.running_mean, norm.running_var) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
            norm.running_mean = norm.running_var = None
        yield model
    finally:
        for norm, (training, track, mean, var) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, track
            norm.running_mean, norm.running_var = mean, var


def recalibrate(model: nn.Module, batches: Iterable[Any], count: int = 10, device: Any = None) -> nn.Module:
    """Estimates batch-norm running statistics anew from a few batches.

    Args:
        model: The network.
        batches: Batches of inputs, or (input, target) pairs as a data loader gives them.
        count: How many batches to use at most.
        device: Where to move the inputs.

    Returns:
        ``model``.

    Raises:
        ValueError: If there is no batch; the statistics stay as they were.
    """
    few = list(itertools.islice(batches, count))
    if not few:
        raise ValueError("recalibrate expected at least one batch, got none")
    update_bn(few, model, device=device)
    return model
