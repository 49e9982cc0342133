"""``verify``: proves the graph of a network by one real run, which :mod:`.run_recorder` follows.

Both sides are reduced to nodes with parameters: the graph by leaving out sums, pools, attention and repeated nodes of
shared layers, the run because its operators have no nodes. Then the predecessors of each node must be the same. The
successors are the same edges, seen from their other end.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..graph.arch_data import ArchData
from ..utils.compat import run_uncompiled
from ..utils.nested_tensors import copy_with_tensors
from ..utils.suggest import some
from .assumptions import fixed_generators
from .kept_reasons import Kept
from .recorder import Recorder
from .run_recorder import RunRecorder, unfused
from .shallow_copy import shallow_copy
from .trace import arguments, from_module

_logger = logging.getLogger(__name__)
_LISTED = 5
"""How many predecessors, and parameters that the run does not use, a sentence names."""


class Difference(NamedTuple):
    """What the graph and the run say differently."""

    node: str  # the name of a node or, if it has none, of a parameter
    explanation: str

    def __str__(self) -> str:
        return f"{self.node} {self.explanation}."


@dataclasses.dataclass(frozen=True)
class Verification:
    """How well a graph agrees with a real run. It is true if nothing differs.

    Args:
        differences: What differs, in the order of the graph.
        compared: Number of nodes with parameters that the run uses.
        not_exercised: Predicted parameters that the run does not use, because it takes another branch.
    """

    differences: tuple[Difference, ...]
    compared: int
    not_exercised: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.differences

    def __str__(self) -> str:
        count, number = len(self.differences), f"{self.compared:,} node{'s' * (self.compared != 1)}"
        outcome = f"{count:,} difference{'s' * (count != 1)}" if count else "no difference"
        lines = [*map(str, self.differences), f"{number} with parameters compared with a real run, {outcome}."]
        if self.not_exercised:
            lines.append(f"Not exercised by the run: {some(self.not_exercised, _LISTED)}.")
        return "\n".join(lines)


def verify(model: nn.Module, example_inputs: Any = None, graph: ArchData | None = None) -> Verification:
    """Proves the graph of a network by running the network once for real, on a copy.

    A recorder follows every operator that PyTorch executes, and knows from it which parameters each activation depends
    on. It uses none of the rules that :func:`~ghn_pyg.from_module` works with. For each node with parameters it
    compares the nodes with parameters that come directly before, and whether biases are added and weights are not.

    The network runs in evaluation mode, and in training mode if that uses more of its parameters. What follows is no
    difference, because a graph cannot say it in another way:

    - A layer that is used again is passed through. Slices of one parameter that are used side by side are one node.
    - A matrix of a recurrent layer that meets its initial state first, which is constant, depends on its own results
      from then on. A graph has no circles, so there its predecessors may be any of the nodes that these results depend
      on.
    - A node that the run does not use, since a condition takes another branch or an expert gets no token, may or may
      not connect its neighbours.
    - Biases that are one bias together, such as a concatenation of several, may stand side by side or in a chain.
    - Token ids, indices and masks that meet activations may or may not connect what they come from.

    Args:
        model: The network. It stays as it is. Parameters without memory get random values.
        example_inputs: Inputs as for :func:`~ghn_pyg.from_module`. Those without data get random values, and small
            inputs are faster.
        graph: Its graph, by default that of :func:`~ghn_pyg.from_module`.

    Returns:
        The differences, which it prints as sentences.

    Raises:
        TypeError: As :func:`~ghn_pyg.from_module` does.
        ValueError: If ``graph`` has parameters that the network does not have, or as from_module does.
        TracingError: If the network cannot be traced.
        Exception: Whatever the forward pass raises on the inputs.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        >>> graph = from_module(network, torch.zeros(1, 3))
        >>> print(verify(network, torch.zeros(1, 3), graph))
        4 nodes with parameters compared with a real run, no difference.
        >>> graph.edge_index = graph.edge_index[:, graph.edge_index[0] != 2]
        >>> print(verify(network, torch.zeros(1, 3), graph))
        2.weight follows nothing in the graph, and 0.bias in the run.
        4 nodes with parameters compared with a real run, 1 difference.
    """
    args, kwargs = arguments(model, example_inputs)
    graph = from_module(model, example_inputs) if graph is None else graph
    _check(graph, model)
    run = _seeded_run(model, graph, args, kwargs, training=False)
    if len(run.predecessors) < sum(map(bool, graph.params)):
        try:
            in_training = _seeded_run(model, graph, args, kwargs, training=True)
        except Exception as error:  # noqa: BLE001  # whatever a forward pass raises
            _logger.info("the network does not run in training mode: %s", error)
        else:
            if len(in_training.predecessors) > len(run.predecessors):
                run = in_training
    used = [node for node, specs in enumerate(graph.params) if specs and node in run.predecessors]
    differences = [*_predecessors(graph, run, used), *_parameters(graph, run)]
    if any(graph.params) and not used:
        differences.append(Difference("the graph", "has parameters, and the run uses none of them"))
    unused = [spec.name for node, specs in enumerate(graph.params) if node not in run.predecessors for spec in specs]
    return Verification(tuple(differences), len(used), tuple(unused))


def _check(graph: ArchData, model: nn.Module) -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
    for spec in (spec for specs in graph.params for spec in specs):
        if shapes.get(spec.name) != tuple(spec.shape):
            raise ValueError(
                f"verify expected a graph of {type(model).__name__}, got one with {spec.name} of shape {spec.shape}; "
                "leave it out to build it"
            )


# --- the run ---------------------------------------------------------------------------------------------------------


def _seeded_run(model: nn.Module, graph: ArchData, args: Any, kwargs: Any, training: bool) -> RunRecorder:
    """A run with the random numbers of a trace."""
    with fixed_generators():
        return _run(model, graph, args, kwargs, training)


def _run(model: nn.Module, graph: ArchData, args: Any, kwargs: Any, training: bool) -> RunRecorder:
    own = Recorder()
    own.adopt(model)
    stand_ins = {key: stand_in for key, tensor in own.owned.items() if (stand_in := _stand_in(tensor)) is not tensor}
    own.owned |= stand_ins
    device = next(iter(own.owned.values())).device
    with shallow_copy(model, own, training, handled=False) as copy:
        for module in copy.modules():
            if isinstance(module, torch.jit.ScriptModule):  # runs itself, with its own tensors
                continue
            for tensors in (module._parameters, module._buffers):
                named: dict[str, Any] = {name: stand_ins.get(id(tensor), tensor) for name, tensor in tensors.items()}
                tensors.update(named)
            if hasattr(module, "running_mean"):  # one sample has no statistics
                module.training = False
        parameters = {name: stand_ins.get(id(parameter), parameter) for name, parameter in own.parameters.items()}
        recorder = RunRecorder(graph, parameters, own.owned.values())

        def entered(tensor: Tensor) -> Tensor:
            tensor = (_with_values(tensor) if tensor.is_meta else tensor.clone()).to(device)
            recorder.enter(tensor)
            return tensor

        args, kwargs = copy_with_tensors(entered, (args, kwargs))
        try:
            with unfused(), run_uncompiled(), torch.no_grad(), recorder:
                copy(*args, **kwargs)
        finally:
            recorder.restore()
    return recorder


def _stand_in(tensor: Tensor) -> Tensor:
    """What the run takes for a tensor of the network: one with values, and for a buffer one that counts its writes."""
    if tensor.is_meta:
        return _with_values(tensor)
    return tensor if isinstance(tensor, nn.Parameter) else tensor.data


def _with_values(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and type with values: random ones, which suit a variance too, or whole zeros."""
    values = torch.zeros_like(tensor, device="cpu")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(values.data.normal_(std=0.1), tensor.requires_grad)
    return values.uniform_() if tensor.is_floating_point() else values


# --- the comparison --------------------------------------------------------------------------------------------------


def _predecessors(graph: ArchData, run: RunRecorder, used: Sequence[int]) -> Iterator[Difference]:
    """Nodes whose predecessors differ."""
    direct: list[list[int]] = [[] for _ in graph.params]
    for source, target in graph.edge_index.t().tolist():
        direct[target].append(source)
    unused = {node for node, specs in enumerate(graph.params) if specs} - set(used)
    groups: dict[int, list[int]] = {}
    for node in used:
        groups.setdefault(run.same.get(node, node), []).append(node)
    for node, members in groups.items():

        def union(sets: Iterable[set[int]], node: int = node) -> set[int]:
            return {run.same.get(other, other) for nodes in sets for other in nodes} - {node}

        most = union(_reached(graph, direct, member, unused) for member in members)
        least = union(_reached(graph, direct, member) - unused for member in members)
        found, perhaps = map(union, zip(*map(run.before, members), strict=True))
        # A shared layer that is used again on a constant follows the input in a graph.
        missing, extra = found - most, least - found - perhaps - {0}
        if missing or extra or (perhaps and not found and not perhaps & most):
            graph_says, run_says = (_listed(graph, nodes) for nodes in (least, found or perhaps))
            yield Difference(graph.node_names[node], f"follows {graph_says} in the graph, and {run_says} in the run")


def _parameters(graph: ArchData, run: RunRecorder) -> Iterator[Difference]:
    """Parameters whose use differs."""
    yield from (Difference(name, explanation) for name, explanation in run.misused.items())
    for name, reason in graph.kept.items():
        if reason == Kept.UNUSED and name in run.met:
            yield Difference(name, "is not used according to the graph, and the run uses it")


def _reached(graph: ArchData, direct: Sequence[Sequence[int]], node: int, through: Collection[int] = ()) -> set[int]:
    """The nodes with parameters, and the input, from which ``node`` is reached without passing another one.

    Nodes in ``through`` are passed all the same.
    """
    reached, waiting, seen = set(), list(direct[node]), set(direct[node])
    while waiting:
        source = waiting.pop()
        if source == 0 or (graph.params[source] and source not in through):
            reached.add(source)
        else:
            waiting += set(direct[source]) - seen
            seen.update(direct[source])
    return reached


def _listed(graph: ArchData, nodes: Collection[int]) -> str:
    names = [graph.node_names[node] if node else "the input" for node in sorted(nodes)]
    return some(names, _LISTED) if names else "nothing"
