"""Writes predicted parameters into a user's network; the only module that writes parameters there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.arch_data import ArchData
from ..tracing.kept_reasons import kept_for_type
from ..utils.nested_tensors import copy_with_tensors
from ..utils.suggest import printable
from .checkpoints.shard_reader import SavedTensors
from .parameter_decoder import node_parameters
from .write_checks import check_writable


def load_prediction(model: nn.Module, prediction: Mapping[str, Tensor] | str | os.PathLike[str]) -> nn.Module:
    """Copies predicted parameters into a network, after all names and shapes are checked.

    Args:
        model: The network.
        prediction: Predicted parameters by name, a safetensors file of them, or a folder of
            :func:`~ghn_pyg.predict_shards`, which is read shard by shard. Other parameters keep their values.

    Returns:
        ``model``.

    Raises:
        TypeError: If the prediction is neither a mapping of names to tensors nor a path.
        FileNotFoundError: If the file, the folder or a shard is missing.
        ValueError: If a name or shape does not belong to ``model``, a parameter cannot be written, or a file is
            damaged. Nothing is written then.

    Example:
        >>> load_prediction(model, "resnet50.safetensors")  # doctest: +SKIP
    """
    parts: Iterable[Mapping[str, Tensor]]
    if isinstance(prediction, (str, os.PathLike)):
        parts = SavedTensors(prediction)
    else:
        values = prediction.values() if isinstance(prediction, Mapping) else [prediction]
        if wrong := [type(value).__name__ for value in values if not isinstance(value, Tensor)]:
            raise TypeError(
                f"load_prediction expected tensors by name, or the path of a file or folder, got {wrong[0]}"
            )
        parts = [prediction]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    written: dict[str, Tensor] = {}
    for part in parts:
        for name, value in part.items():
            _check_parameter(model, parameters, name, value.shape, value.dtype, "prediction")
            written[name] = parameters[name]
    check_writable(model, written)
    with torch.no_grad():
        for part in parts:
            for name, value in part.items():
                parameters[name].copy_(value)
    return model


def initialize_lazy_layers(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Gives lazy layers their parameters by a forward pass on the inputs; modes and random state stay as they are."""
    args, kwargs = copy_with_tensors(
        lambda tensor: torch.zeros_like(tensor, device="cpu") if tensor.is_meta else tensor.detach().clone().cpu(),
        (args, kwargs),
    )
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.eval()(*args, **kwargs)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"{type(model).__name__} has lazy layers, and its forward pass fails on these inputs ({error}); run the "
            "network once on inputs that it accepts"
        ) from error
    finally:
        for module, training in modes:
            module.training = training


def writable_parameters(model: nn.Module, graph: ArchData, keep_classifier: bool) -> dict[str, Tensor]:
    """The parameters of ``model`` by name, to be written in place, if the graph is that of the network."""
    if graph.get("ptr") is not None:
        raise ValueError("expected the graph of one network, got a batch; call predict for several networks")
    parameters = dict(model.named_parameters())
    specs = [each.spec for each in node_parameters(graph) if not (keep_classifier and each.classifier)]
    for spec in specs:
        _check_parameter(model, parameters, spec.name, spec.shape, torch.float32, "graph")
    check_writable(model, {spec.name: parameters[spec.name] for spec in specs})
    return {name: parameter.detach() for name, parameter in parameters.items()}


def _check_parameter(
    model: nn.Module, parameters: Mapping[str, Tensor], name: str, shape: Sequence[int], dtype: torch.dtype, source: str
) -> None:
    """Raises a ValueError if the network has no such parameter, or it has no memory or another kind of numbers."""
    parameter = parameters.get(name)
    if parameter is None or parameter.shape != shape:
        has = "no such parameter" if parameter is None else f"shape {tuple(parameter.shape)}"
        name = printable(name, 200)
        raise ValueError(
            f"the {source} belongs to another network: {name} has shape {tuple(shape)} in the {source}, and "
            f"{type(model).__name__} has {has}; make the {source} from this network"
        )
    if parameter.dtype != dtype and (reason := kept_for_type(parameter)) is not None:
        raise ValueError(f"the {source} has {name}, which must keep its values: {reason}; make it from this network")
    if parameter.is_meta:
        raise ValueError(
            f"{name} is on the meta device and has no memory to write into; call model.to_empty(device=...) first, "
            "or use predict() and functional_call"
        )
