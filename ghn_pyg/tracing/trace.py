"""``from_module``: any network → its graph, from a trace in evaluation and, for auxiliary heads, in training mode."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from ..graph.arch_data import ArchData
from ..graph.node_types import PRIMITIVE_ID
from ..transforms import shortest_paths
from ..utils.compat import has_plain_values, is_fake, outside_of_modes, run_uncompiled
from ..utils.nested_tensors import copy_with_tensors, tensors_inside
from . import other_layouts, rules  # noqa: F401  (registers the rules)
from .assumptions import CONDITIONS, GENERATORS_LOCK, Assumptions, Generators, fix_generators, uses_generators
from .default_inputs import default_inputs
from .kept_reasons import Kept, enters
from .registry import RuleError
from .rewrite_passes import rewrite
from .shallow_copy import shallow_copy
from .steps import Sources, Step
from .tracer import NOT_THE_NETWORK, OperatorTracer, Tracer, asks_for_values
from .values import Value

_logger = logging.getLogger(__name__)
_MAX_FLIPPED: Final = 16  # conditions of which the opposite is tried


class TracingError(RuntimeError):
    """The forward pass of a network could not be traced."""


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Lets no garbage collection go through all objects: a trace leaves no cycles, and would take twice the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def from_module(model: nn.Module, example_inputs: Any = None, cutoff: int = 50) -> ArchData:
    """Builds the graph of a network.

    The forward pass runs on tensors without data, so that no activation is computed or stored. The network stays as it
    is: parameters, buffers, mode, attributes, random state. Auxiliary heads and other parts that run in training mode
    only belong to the graph, unless evaluation uses more parameters. Where the forward pass asks for the values of
    activations or draws random numbers, the answers that reach the most parameters are taken. If it asks for values
    after its last parameter, as post-processing does, the graph ends there, with a warning.

    Args:
        model: The network, on any device, in any mode.
        example_inputs: Inputs of its forward pass: one argument, a tuple or list of arguments, or a mapping of keyword
            arguments. Arguments are tensors, also sparse and nested ones, or hold tensors: containers, named tuples,
            dataclasses, PyG's ``Data``, and objects of any kind, which are copied. Of floating-point tensors only
            shapes, types and layouts matter; integers keep their values. By default an image of the size that the
            network declares, else 1×3×224×224; for models of Transformers, what their configuration asks for.
        cutoff: Largest shortest-path distance that is kept, in edges.

    Returns:
        The graph; see :class:`~ghn_pyg.ArchData`. Parameters that it cannot predict are in ``kept``, with the reason.

    Raises:
        TypeError: If ``model`` is no module, or ``example_inputs`` contains no tensor.
        ValueError: If ``model`` has no parameters, or uninitialised or fake ones, ``cutoff`` is out of range, or a
            handler of :func:`~ghn_pyg.register_layer` or a rule of :func:`~ghn_pyg.register_parameter` returned an
            invalid node.
        TracingError: If the forward pass fails, or needs the values of activations outside of tensors.

    Example:
        >>> import torchvision
        >>> from_module(torchvision.models.resnet18()).num_nodes
        53
    """
    build = torch.compiler.disable(_build) if torch.compiler.is_compiling() else _build
    return build(model, example_inputs, cutoff)


@_collector_paused()
def _build(model: nn.Module, example_inputs: Any, cutoff: int) -> ArchData:
    with GENERATORS_LOCK, outside_of_modes():
        trace = _trace_in_both_modes(model, *arguments(model, example_inputs))
        graph = _graph(trace.tracer, trace.output, cutoff)
    if trace.error is not None:
        warnings.warn(
            f"the forward pass of {type(model).__name__} reads values of activations after its last parameter; the "
            f"graph ends there ({type(trace.error.__cause__).__name__}: {trace.error.__cause__})",
            stacklevel=4,
        )
    return graph


def _trace_in_both_modes(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Trace:
    """The trace in evaluation mode, or in training mode if only that reaches all parameters."""
    trace = _best_trace(model, args, kwargs, training=False)
    if unused := trace.unused:
        never: set[str] = set()
        try:
            in_training = _best_trace(model, args, kwargs, training=True)
        except TracingError as error:
            _logger.info("parts that run in training mode only are left out: %s", error)
        else:
            if not (trace.uncertain or in_training.uncertain):
                never = unused & in_training.unused
            if unused - in_training.unused and len(in_training.unused) <= len(unused):
                trace = in_training
        # Only what neither mode reaches, whatever the values of activations are, counts as unused.
        tracer = trace.tracer
        tracer.reasons = dict.fromkeys(trace.unused - never - tracer.met, Kept.UNREACHED) | tracer.reasons
    return trace


def arguments(model: nn.Module, example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that :func:`from_module` passes to the forward pass."""
    if not isinstance(model, nn.Module):
        hint = "; call it to build the network" if isinstance(model, type) or inspect.isroutine(model) else ""
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__} {model!r:.80}{hint}")
    if example_inputs is None:
        return default_inputs(model)
    args: tuple[Any, ...] = (example_inputs,)
    kwargs: dict[str, Any] = {}
    if isinstance(example_inputs, Mapping):
        args, kwargs = (), dict(example_inputs)
    elif isinstance(example_inputs, (tuple, list)) and not hasattr(example_inputs, "_fields"):
        args = tuple(example_inputs)
    if next(tensors_inside((args, kwargs)), None) is None:
        raise TypeError(
            "example_inputs expected a tensor, a tuple of arguments or a dictionary of keyword arguments, or objects "
            f"that hold tensors, with at least one tensor, got {example_inputs!r:.80}; for a shape, pass "
            "torch.zeros(shape)"
        )
    return args, kwargs


# --- running the forward pass ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Trace:
    """A forward pass under assumptions."""

    tracer: Tracer
    output: Sources = ()  # of the main output
    error: TracingError | None = None  # that ended it

    @property
    def unused(self) -> set[str]:
        """The parameters that it does not reach."""
        return set(self.tracer.parameters) - set(self.tracer.claimed) - set(self.tracer.folded)

    @property
    def uncertain(self) -> bool:
        """Whether it would be another one under other assumptions."""
        return self.tracer.chose or self.tracer.drew or bool(self.tracer.asked)

    @property
    def complete(self) -> bool:
        """Whether it reaches all parameters, and fails at most because it then asks for values."""
        values = self.error is None or asks_for_values(self.error.__cause__)
        return values and not self.unused

    def rank(self) -> tuple[bool, bool, int, bool]:
        """The larger, the better: a loop that waits for a condition runs at least twice."""
        twice = max(self.tracer.asked.values(), default=0) > 1
        return self.error is None, self.complete, -len(self.unused), twice


def _best_trace(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> _Trace:
    """The trace under the assumptions that reach the most parameters."""
    before = Generators.now()
    best = _run(Tracer(Assumptions()), model, args, kwargs, training)
    if before.unused() or not uses_generators(
        lambda: _run(Tracer(Assumptions()), model, args, kwargs, training), NOT_THE_NETWORK
    ):
        return _best_of(best, model, args, kwargs, training)
    try:
        first = _run(Tracer(Assumptions(fixed=True)), model, args, kwargs, training)
        return _best_of(first, model, args, kwargs, training)
    finally:
        before.restore()


def _best_of(first: _Trace, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> _Trace:
    """The trace or another one, with other answers where the forward pass asks for values."""
    best = first

    def attempt(**changes: Any) -> None:
        nonlocal best
        trace = _run(Tracer(dataclasses.replace(best.tracer.assumed, **changes)), model, args, kwargs, training)
        best = max(best, trace, key=_Trace.rank)

    if first.tracer.asked:
        for conditions in list(CONDITIONS)[1:] if first.error or first.unused else ("later",):  # the first was tried
            attempt(conditions=conditions)
    if best.error and first.uncertain:
        for conditions in ("never", "always"):
            attempt(all_chosen=False, conditions=conditions)
    if best.tracer.drew and (best.error or best.unused):
        for number in (1.0, 0.0):
            attempt(drawn=number)
    for site in list(best.tracer.asked)[:_MAX_FLIPPED]:
        if best.unused:
            attempt(flipped=best.tracer.assumed.flipped ^ {site})
    if best.error is not None and not best.complete:
        raise first.error or best.error
    return best


def _run(tracer: Tracer, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> _Trace:
    def placeholder(tensor: Tensor) -> Tensor:
        if not other_layouts.is_dense(tensor):
            return other_layouts.placeholder(tracer, tensor, Value((0,)))
        # Token ids, lengths and masks keep their values, which a forward pass may look at.
        if tensor.is_floating_point() or tensor.is_complex() or tensor.is_meta or not has_plain_values(tensor):
            return tracer.emit(tensor.shape, tensor.dtype, Value((0,)))
        return tracer.remember(tensor.to("cpu", copy=True), Value((0,)))

    args, kwargs = copy_with_tensors(placeholder, (args, kwargs))
    tracer.adopt(model)
    if not tracer.parameters:
        raise ValueError(f"{type(model).__name__} has no parameters, so there is nothing to predict")
    if lazy := [name for name, parameter in tracer.parameters.items() if nn.parameter.is_lazy(parameter)]:
        raise ValueError(
            f"parameters {lazy[:3]} are not initialised yet; run the network once before building its graph"
        )
    if any(map(is_fake, tracer.owned.values())):
        raise ValueError(
            f"{type(model).__name__} has fake tensors, which only their FakeTensorMode computes with; build the "
            "network outside of it, for one without memory under torch.device('meta')"
        )
    with shallow_copy(model, tracer, training) as copy:
        try:
            if tracer.assumed.fixed:
                fix_generators(tracer.assumed.drawn)
            with run_uncompiled(), torch.no_grad(), OperatorTracer(), tracer:
                result = copy(*args, **kwargs)
        except RuleError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever the network raises
            failure = TracingError(_failure(model, args, kwargs, error))
            failure.__cause__ = error
            return _Trace(tracer, (len(tracer.steps) - 1,), failure)
        output = next(tensors_inside(result), None)
    return _Trace(tracer, tracer.sources(output))


def _failure(model: nn.Module, args: Any, kwargs: Any, error: Exception) -> str:
    shapes = ", ".join(str(other_layouts.dense_shape(tensor)) for tensor in tensors_inside((args, kwargs)))
    path = getattr(error, "ghn_scope", "")
    where = f" in {path!r}" if path else ""
    hint = (
        "To build its graph, pass inputs that it accepts, from_module(model, example_inputs); "
        "ghn.initialize(model, graph) and ghn.predict(graph) take the graph"
    )
    if asks_for_values(error):
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
    fixed = tracer.of_other_types
    kept = {name: each for name, each in tracer.parameters.items() if name not in tracer.claimed or name in fixed}
    used = dict.fromkeys(tracer.met, enters("a computation of parameters alone"))
    reasons = dict.fromkeys(kept, Kept.UNUSED) | used | tracer.folded | tracer.reasons | fixed
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
