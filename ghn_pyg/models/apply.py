"""The only place that writes into a user's network: its parameters, and its batch-norm statistics on request."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..graph.arch_data import ArchData
from ..utils.nested_tensors import map_tensors
from .checkpoints.sharded_files import SavedTensors

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


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


def materialize(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Gives lazily built layers their parameters, as PyTorch does: by a forward pass, on inputs without information.

    Args:
        model: The network; its mode, running statistics and PyTorch's random state stay as they are.
        args: What its forward pass takes; of tensors on the meta device only shape and type count.
        kwargs: The same by name.

    Raises:
        ValueError: If the forward pass does not accept them.
    """
    args, kwargs = (
        map_tensors(lambda tensor: torch.zeros_like(tensor, device="cpu"), given) for given in (args, kwargs)
    )
    parts = list(model.modules())
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _restored(parts, "training"):
        for part in parts:
            part.training = False
        try:
            model(*args, **kwargs)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"{type(model).__name__} has layers that are built by the first forward pass, which fails on inputs of "
                f"the default size ({error}); run the network once on inputs that it accepts"
            ) from error


def load_prediction(model: nn.Module, prediction: Mapping[str, Tensor] | str | os.PathLike[str]) -> nn.Module:
    """Copies predicted parameters into a network, after all names and shapes are checked.

    Args:
        model: The network.
        prediction: Predicted parameters by name, a safetensors file of them, or a folder of
            :func:`~ghn_pyg.predict_shards`, which is read shard by shard; other parameters keep their values.

    Returns:
        ``model``.

    Raises:
        TypeError: If the prediction is neither a mapping of names to tensors nor a path.
        FileNotFoundError: If the file, the folder or a shard is missing.
        ValueError: If a name or shape does not belong to ``model``, or a file is damaged. Nothing is written then.

    Example:
        >>> load_prediction(model, "resnet50.safetensors")  # doctest: +SKIP
    """
    parts = _parts(prediction)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for part in parts:
        for name, value in part.items():
            _check_value(model, parameters, name, value)
    with torch.no_grad():
        for part in parts:
            for name, value in part.items():
                parameters[name].copy_(value)
    return model


def _parts(prediction: Any) -> Iterable[Mapping[str, Tensor]]:
    """Parameters by name, in parts that can be held and that can be gone through twice."""
    if isinstance(prediction, (str, os.PathLike)):
        return SavedTensors(prediction)
    values = prediction.values() if isinstance(prediction, Mapping) else [prediction]
    if wrong := [type(value).__name__ for value in values if not isinstance(value, Tensor)]:
        raise TypeError(f"load_prediction expected tensors by name, or the path of a file or folder, got {wrong[0]}")
    return [prediction]


def _check_value(model: nn.Module, parameters: Mapping[str, Tensor], name: str, value: Tensor) -> None:
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
    with _restored(norms, "training", "track_running_stats", "running_mean", "running_var"):
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
            norm.running_mean = norm.running_var = None
        yield model


def recalibrate(model: nn.Module, batches: Iterable[Any], count: int = 10, device: Any = None) -> nn.Module:
    """Estimates batch-norm running statistics anew: the averages of the statistics of a few batches.

    The network runs as in evaluation (without dropout, say), but for its batch norms, which use each batch's own
    statistics. Norms that no batch reaches keep theirs, and so does the whole network after an error.

    Args:
        model: The network.
        batches: Batches of inputs, or (input, target) pairs as a data loader gives them.
        count: How many batches to use at most.
        device: Where to move the inputs.

    Returns:
        ``model``.

    Raises:
        TypeError: If ``batches`` is a tensor, or a batch is a dictionary.
        ValueError: If there is no batch.

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
    parts = list(model.modules())
    norms = [part for part in parts if isinstance(part, _BatchNorm) and part.running_mean is not None]
    with _restored(parts, "training"), _restored(norms, "momentum", "track_running_stats", *_STATISTICS):
        for part in parts:
            part.training = False
        for norm in norms:
            norm.training, norm.track_running_stats, norm.momentum = True, True, None  # None: a plain average
            mean = cast(Tensor, norm.running_mean)
            norm.running_mean, norm.running_var = torch.zeros_like(mean), torch.ones_like(mean)
            norm.num_batches_tracked = mean.new_zeros((), dtype=torch.long)
        used = _run(model, itertools.islice(batches, count), device)
        found = [[getattr(norm, name) for name in _STATISTICS] for norm in norms]
    if not used:
        raise ValueError("recalibrate expected at least one batch, got none")
    for norm, values in zip(norms, found, strict=True):
        if values[-1]:
            for name, value in zip(_STATISTICS, values, strict=True):
                if (buffer := getattr(norm, name)) is not None:
                    buffer.copy_(value)
    return model


def _run(model: nn.Module, batches: Iterable[Any], device: Any) -> int:
    """Sends batches through a network; returns how many."""
    used = 0
    for batch in batches:
        if isinstance(batch, Mapping):
            raise TypeError(
                f"recalibrate expected batches of inputs or (inputs, target) pairs, got a dictionary with "
                f"{', '.join(map(repr, batch))}; pick the inputs, as in (batch['image'] for batch in loader)"
            )
        inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
        with torch.no_grad():
            model(inputs if device is None else inputs.to(device))
        used += 1
    return used


@contextlib.contextmanager
def _restored(modules: Sequence[nn.Module], *names: str) -> Iterator[None]:
    """Gives the modules their attributes back when the context ends."""
    before = [[getattr(module, name) for name in names] for module in modules]
    try:
        yield
    finally:
        for module, values in zip(modules, before, strict=True):
            for name, value in zip(names, values, strict=True):
                setattr(module, name, value)
