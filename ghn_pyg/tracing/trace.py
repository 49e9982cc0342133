"""Any ``nn.Module`` → its graph."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import random
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..graph.arch_data import ArchData
from ..graph.node_types import PRIMITIVE_ID
from ..transforms import shortest_paths
from ..utils.nested_tensors import map_tensors, tensors_in
from . import rules  # noqa: F401  (registers the rules)
from .inputs import default_inputs
from .kept import Kept, enters
from .passes import rewrite
from .registry import RuleError
from .shadow import shadow
from .steps import Sources, Step
from .tracer import Tracer
from .values import Value

_logger = logging.getLogger(__name__)
_NO_VALUES = re.compile(r"\b[Mm]eta (tensors?|device|Long|Bool)|register_meta|data-independent")


class TracingError(RuntimeError):
    """The forward pass of a network could not be followed."""


def from_module(model: nn.Module, example_inputs: Any = None, cutoff: int = 50) -> ArchData:
    """Builds the graph of a network.

    The forward pass runs on tensors without data, so that no activation is computed or stored; the network is left
    as it is (parameters, buffers, mode, attributes, random state). Parts that run in training mode only, such as
    auxiliary heads, belong to the graph, unless evaluation uses more parameters. Where it branches on the values of
    activations the condition is taken to hold.

    Args:
        model: The network, on any device, in any mode.
        example_inputs: What its forward pass takes: a tensor, a tuple or list of arguments, or a dictionary of
            keyword arguments. By default an image of the size that the network declares, else 1×3×224×224. Only
            shapes and types count.
        cutoff: Largest shortest-path distance that is kept.

    Returns:
        The graph; see :class:`~ghn_pyg.ArchData`. Parameters that it cannot predict are in ``kept``, with the reason.

    Raises:
        TypeError: If ``model`` is no module, or ``example_inputs`` hold no tensor.
        ValueError: If it has no parameters or uninitialised ones, ``cutoff`` is out of range, or a handler of
            :func:`~ghn_pyg.register_layer` or a rule of :func:`~ghn_pyg.register_parameter` returned what does not fit.
        TracingError: If its forward pass fails, or computes with the values of activations outside of tensors.

    Example:
        >>> import torchvision
        >>> from_module(torchvision.models.resnet18()).num_nodes
        53
    """
    args, kwargs = arguments(model, example_inputs)
    tracer, output = _trace(model, args, kwargs, False)
    if unused := _unused(tracer):
        never: set[str] = set()
        try:
            other, other_output = _trace(model, args, kwargs, True)
        except TracingError as error:
            _logger.info("parts that run in training mode only are left out: %s", error)
        else:
            if not (tracer.chose or other.chose):
                never = unused & _unused(other)
            if unused - _unused(other) and len(_unused(other)) <= len(unused):
                tracer, output = other, other_output
        # What another mode or other values may use is not said to be unused.
        tracer.reasons = dict.fromkeys(_unused(tracer) - never - tracer.met, Kept.UNREACHED) | tracer.reasons
    return _graph(tracer, output, cutoff)


def _unused(tracer: Tracer) -> set[str]:
    return set(tracer.parameters) - set(tracer.claimed) - set(tracer.folded)


def _check_parameters(model: nn.Module, tracer: Tracer) -> None:
    if not tracer.parameters:
        raise ValueError(f"{type(model).__name__} has no parameters, so there is nothing to predict")
    lazy = [name for name, p in tracer.parameters.items() if isinstance(p, nn.parameter.UninitializedParameter)]
    if lazy:
        raise ValueError(
            f"parameters {lazy[:3]} are not initialised yet; run the network once before building its graph"
        )


def arguments(model: nn.Module, example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that :func:`from_module` gives to the forward pass."""
    if not isinstance(model, nn.Module):
        hint = "; call it to build the network" if isinstance(model, type) or inspect.isroutine(model) else ""
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__} {model!r:.80}{hint}")
    if example_inputs is None:
        return default_inputs(model)
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(example_inputs, Mapping):
        kwargs = dict(example_inputs)
    elif isinstance(example_inputs, (tuple, list)):
        args = tuple(example_inputs)
    else:
        args = (example_inputs,)
    if not any(True for _ in tensors_in((args, kwargs))):
        raise TypeError(
            "example_inputs expected a tensor, a tuple of arguments or a dictionary of keyword arguments with at "
            f"least one tensor, got {example_inputs!r:.80}; of a shape, torch.zeros(shape) is one"
        )
    return args, kwargs


def _trace(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> tuple[Tracer, Sources]:
    tracer = Tracer()
    try:
        return _run(tracer, model, args, kwargs, training)
    except TracingError:
        if tracer.chose:
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
    with _deep_calls(), shadow(model, tracer, training) as copy:
        _check_parameters(model, tracer)
        try:
            with _random_state(), _uncompiled(), torch.no_grad(), tracer:
                result = copy(*args, **kwargs)
        except RuleError:
            raise
        except Exception as error:
            raise TracingError(_failure(model, tracer, args, kwargs, error)) from error
        outputs = list(tensors_in([_values(result)]))
    return tracer, tracer.sources(outputs[0]) if outputs else ()


def _values(result: Any) -> Any:
    """Outputs that are objects, such as dataclasses, give their fields."""
    if isinstance(result, (Tensor, list, tuple, dict)):
        return result
    if dataclasses.is_dataclass(result):
        return [getattr(result, field.name) for field in dataclasses.fields(result)]
    return list(getattr(result, "__dict__", {}).values())


def _uncompiled() -> Any:
    """Parts that compile themselves run as they are written; nothing is loaded for networks that do not compile."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


@contextlib.contextmanager
def _random_state() -> Iterator[None]:
    """Whatever the forward pass draws, the generators go on as if it had not run."""
    state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


@contextlib.contextmanager
def _deep_calls() -> Iterator[None]:
    """A trace takes more frames for each module than the network itself, which may be as deep as Python allows."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(2 * limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _failure(model: nn.Module, tracer: Tracer, args: Any, kwargs: Any, error: Exception) -> str:
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


def _graph(tracer: Tracer, output: Sources, cutoff: int) -> ArchData:
    nodes, kinds, inputs, layer = rewrite(tracer.steps, output)
    edges = [(source, node) for node, sources in enumerate(inputs) for source in sources]
    edge_index = torch.tensor(edges, dtype=torch.long, device="cpu").view(-1, 2).t().contiguous()
    classifier = torch.zeros(len(nodes), dtype=torch.bool, device="cpu")
    classifier[layer] = True
    predicted = {spec.name for node in nodes for spec in node.params}
    return ArchData(
        node_type=torch.tensor([PRIMITIVE_ID[kind] for kind in kinds], device="cpu"),
        edge_index=edge_index,
        node_shape=torch.tensor([node.shape for node in nodes], device="cpu"),
        classifier=classifier,
        distance=shortest_paths(edge_index, len(nodes), cutoff).flatten(),
        params=[list(node.params) for node in nodes],
        node_names=_node_names(nodes, kinds),
        kept={name: _reason(tracer, name) for name in tracer.parameters if name not in predicted},
        kept_shapes={name: tuple(p.shape) for name, p in tracer.parameters.items() if name not in predicted},
        tied=dict(tracer.tied),
        num_nodes=len(nodes),
    )


def _reason(tracer: Tracer, name: str) -> str:
    met = enters("a computation of parameters alone") if name in tracer.met else Kept.UNUSED
    return tracer.reasons.get(name) or tracer.folded.get(name, met)


def _node_names(nodes: list[Step], kinds: list[str]) -> list[str]:
    """Parameters name their nodes; other operations are named after their module, counted where it has several."""
    names: list[str] = []
    counts: dict[str, int] = {}
    for node, kind in zip(nodes, kinds, strict=True):
        name = node.params[0].name if node.params else f"{node.scope}:{kind}" if node.scope else kind
        counts[name] = counts.get(name, 0) + 1
        names.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return names
