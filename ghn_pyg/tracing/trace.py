"""``from_module``: any network → its graph, from a trace in evaluation and, for auxiliary heads, in training mode."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from ..graph.arch_data import ArchData
from ..graph.node_types import PRIMITIVE_ID
from ..transforms import shortest_paths
from ..utils.compat import run_uncompiled
from ..utils.nested_tensors import map_tensors, tensors_in
from . import rules  # noqa: F401  (registers the rules)
from .default_inputs import default_inputs
from .kept_reasons import Kept, enters
from .registry import RuleError
from .rewrite_passes import rewrite
from .shallow_copy import shallow_copy
from .steps import Sources, Step
from .tracer import Tracer
from .values import Value

_logger = logging.getLogger(__name__)
_NO_VALUES: Final = re.compile(r"\b[Mm]eta (tensors?|device|Long|Bool)|register_meta|data-independent")


class TracingError(RuntimeError):
    """The forward pass of a network could not be traced."""


def from_module(model: nn.Module, example_inputs: Any = None, cutoff: int = 50) -> ArchData:
    """Builds the graph of a network.

    The forward pass runs on tensors without data, so that no activation is computed or stored. The network stays as it
    is: parameters, buffers, mode, attributes, random state. Auxiliary heads and other parts that run in training mode
    only belong to the graph, unless evaluation uses more parameters. A branch on the values of activations is taken as
    if its condition held.

    Args:
        model: The network, on any device, in any mode.
        example_inputs: Inputs of its forward pass: a tensor, a tuple or list of arguments, or a dictionary of keyword
            arguments. Only shapes and types matter. By default an image of the size that the network declares, else
            1×3×224×224; for models of Transformers, what their configuration asks for.
        cutoff: Largest shortest-path distance that is kept, in edges.

    Returns:
        The graph; see :class:`~ghn_pyg.ArchData`. Parameters that it cannot predict are in ``kept``, with the reason.

    Raises:
        TypeError: If ``model`` is no module, or ``example_inputs`` contains no tensor.
        ValueError: If ``model`` has no parameters or uninitialised ones, ``cutoff`` is out of range, or a handler of
            :func:`~ghn_pyg.register_layer` or a rule of :func:`~ghn_pyg.register_parameter` returned an invalid node.
        TracingError: If the forward pass fails, or needs the values of activations outside of tensors.

    Example:
        >>> import torchvision
        >>> from_module(torchvision.models.resnet18()).num_nodes
        53
    """
    args, kwargs = arguments(model, example_inputs)
    tracer, output = _trace(model, args, kwargs, training=False)
    if unused := _unused(tracer):
        never: set[str] = set()
        try:
            train_tracer, train_output = _trace(model, args, kwargs, training=True)
        except TracingError as error:
            _logger.info("parts that run in training mode only are left out: %s", error)
        else:
            unused_in_training = _unused(train_tracer)
            if not (tracer.chose or train_tracer.chose):
                never = unused & unused_in_training
            if unused - unused_in_training and len(unused_in_training) <= len(unused):
                tracer, output = train_tracer, train_output
        # Only what neither mode reaches, whatever the values of activations are, counts as unused.
        tracer.reasons = dict.fromkeys(_unused(tracer) - never - tracer.met, Kept.UNREACHED) | tracer.reasons
    return _graph(tracer, output, cutoff)


def arguments(model: nn.Module, example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that :func:`from_module` passes to the forward pass."""
    if not isinstance(model, nn.Module):
        hint = "; call it to build the network" if isinstance(model, type) or inspect.isroutine(model) else ""
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__} {model!r:.80}{hint}")
    if example_inputs is None:
        return default_inputs(model)
    args = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    kwargs = {}
    if isinstance(example_inputs, Mapping):
        args, kwargs = (), dict(example_inputs)
    if next(tensors_in((args, kwargs)), None) is None:
        raise TypeError(
            "example_inputs expected a tensor, a tuple of arguments or a dictionary of keyword arguments with at "
            f"least one tensor, got {example_inputs!r:.80}; for a shape, pass torch.zeros(shape)"
        )
    return args, kwargs


def _unused(tracer: Tracer) -> set[str]:
    return set(tracer.parameters) - set(tracer.claimed) - set(tracer.folded)


# --- running the forward pass ----------------------------------------------------------------------------------------


def _trace(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> tuple[Tracer, Sources]:
    """The recorded steps, and the sources of the main output."""
    tracer = Tracer()
    try:
        return _run(tracer, model, args, kwargs, training)
    except TracingError:
        if tracer.chose:  # try again with no elements chosen
            with contextlib.suppress(TracingError):
                return _run(Tracer(chooses=False), model, args, kwargs, training)
        raise


def _run(
    tracer: Tracer, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool
) -> tuple[Tracer, Sources]:
    def placeholder(tensor: Tensor) -> Tensor:
        # Token ids, lengths and masks keep their values, which a forward pass may look at.
        if tensor.is_floating_point() or tensor.is_complex() or tensor.is_meta:
            return tracer.emit(tensor.shape, tensor.dtype, Value((0,)))
        return tracer.remember(tensor.to("cpu", copy=True), Value((0,)))

    args, kwargs = map_tensors(placeholder, args), map_tensors(placeholder, kwargs)
    tracer.adopt(model)
    if not tracer.parameters:
        raise ValueError(f"{type(model).__name__} has no parameters, so there is nothing to predict")
    if lazy := [name for name, parameter in tracer.parameters.items() if nn.parameter.is_lazy(parameter)]:
        raise ValueError(
            f"parameters {lazy[:3]} are not initialised yet; run the network once before building its graph"
        )
    with shallow_copy(model, tracer, training) as copy:
        try:
            with _random_state(), run_uncompiled(), torch.no_grad(), tracer:
                result = copy(*args, **kwargs)
        except RuleError:
            raise
        except Exception as error:
            raise TracingError(_failure(model, args, kwargs, error)) from error
        output = next(tensors_in([_fields(result)]), None)
    return tracer, tracer.sources(output)


def _fields(result: Any) -> Any:
    """The fields of an output that is an object, such as a dataclass."""
    if dataclasses.is_dataclass(result) and not isinstance(result, dict):
        return [getattr(result, field.name) for field in dataclasses.fields(result)]
    return result if isinstance(result, (Tensor, list, tuple, dict)) else list(getattr(result, "__dict__", {}).values())


@contextlib.contextmanager
def _random_state() -> Iterator[None]:
    """Restores the random generators."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=()):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def _failure(model: nn.Module, args: Any, kwargs: Any, error: Exception) -> str:
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in((args, kwargs)))
    path = getattr(error, "ghn_scope", "")
    where = f" in {path!r}" if path else ""
    hint = (
        "To build its graph, pass inputs that it accepts, from_module(model, example_inputs); "
        "ghn.initialize(model, graph) and ghn.predict(graph) take the graph"
    )
    if isinstance(error, (RuntimeError, TypeError)) and _NO_VALUES.search(str(error)):
        hint = "It depends on the values of tensors, which a graph does not have; make it depend on shapes alone"
    return (
        f"the forward pass of {type(model).__name__} failed{where} on input of shape {shapes}: "
        f"{type(error).__name__}: {error}. {hint}."
    )


# --- building the graph ----------------------------------------------------------------------------------------------


def _graph(tracer: Tracer, output: Sources, cutoff: int) -> ArchData:
    nodes, kinds, inputs, layer = rewrite(tracer.steps, output)
    edges = [(source, node) for node, sources in enumerate(inputs) for source in sources]
    edge_index = torch.tensor(edges, dtype=torch.long, device="cpu").view(-1, 2).t().contiguous()
    classifier = torch.zeros(len(nodes), dtype=torch.bool, device="cpu")
    classifier[layer] = True
    kept = {name: parameter for name, parameter in tracer.parameters.items() if name not in tracer.claimed}
    used = dict.fromkeys(tracer.met, enters("a computation of parameters alone"))
    reasons = dict.fromkeys(kept, Kept.UNUSED) | used | tracer.folded | tracer.reasons
    return ArchData(
        node_type=torch.tensor([PRIMITIVE_ID[kind] for kind in kinds], device="cpu"),
        edge_index=edge_index,
        node_shape=torch.tensor([node.shape for node in nodes], device="cpu"),
        classifier=classifier,
        distance=shortest_paths(edge_index, len(nodes), cutoff).flatten(),
        params=[list(node.params) for node in nodes],
        node_names=_node_names(nodes, kinds),
        kept={name: reasons[name] for name in kept},
        kept_shapes={name: tuple(parameter.shape) for name, parameter in kept.items()},
        tied=dict(tracer.tied),
        num_nodes=len(nodes),
    )


def _node_names(nodes: list[Step], kinds: list[str]) -> list[str]:
    """Nodes are named after their parameter, else after their module, with a count where names repeat."""
    names: list[str] = []
    counts: dict[str, int] = {}
    for node, kind in zip(nodes, kinds, strict=True):
        name = node.params[0].name if node.params else f"{node.scope}:{kind}" if node.scope else kind
        counts[name] = counts.get(name, 0) + 1
        names.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return names
