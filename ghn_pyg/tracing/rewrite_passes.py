"""Rewrite passes: recorded steps → nodes and edges; activations and unnamed operations are folded away here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from .steps import LAYERS, WEIGHTS, Sources, Step, union

_UNNAMED: Final = frozenset(("softmax", "mul", "product", "table", "statistic", "centred", "shifted", "normalised"))
_JOINS: Final = frozenset(("sum", "concat"))
# Between the classification layer and the output there may be these.
_AFTER_CLASSIFIER: Final = _JOINS | {
    "glob_avg", "avg_pool", "max_pool", "softmax", "statistic", "centred", "shifted", "normalised",
}  # fmt: skip


def rewrite(steps: list[Step], output: Sources) -> tuple[list[Step], list[str], list[Sources], list[int]]:
    """Applies all passes.

    Args:
        steps: Steps in the order in which they were recorded; every input comes before its user. Not changed.
        output: Sources of the main output.

    Returns:
        The nodes' steps in topological order (the input first, the main classifier last), the type and the
        predecessors of each, and the nodes of the classification layer's weight and bias.
    """
    kinds, dropped = resolve_gates(steps)
    resolved, inputs = fold(steps, kinds, dropped)
    layer = classifier(steps, output)
    output = union(*(resolved[source] for source in output))
    pool = pool_before_classifier(steps, inputs, output, layer)
    for index, step in enumerate(steps[1:], start=1):
        if not inputs[index] and step.kind != "pos_enc":  # learned positions stay roots
            inputs[index] = (0,)
    with_parameters = [index for index, step in enumerate(steps) if step.params]
    order = sorted(with_ancestors((0, *output, *with_parameters), inputs))  # the recorded order is topological
    if pool is not None:
        order.remove(pool)
        order.insert(order.index(layer[0]), pool)
    if layer and not any(layer[-1] in inputs[step] for step in order):
        order.remove(layer[-1])
        order.append(layer[-1])
    node_of = {step: node for node, step in enumerate(order)}
    edges = [tuple(sorted(node_of[source] for source in inputs[step])) for step in order]
    nodes = [steps[step] for step in order]
    return nodes, [kinds[step] for step in order], edges, [node_of[step] for step in layer]


def resolve_gates(steps: Sequence[Step]) -> tuple[list[str], set[int]]:
    """Distinguishes squeeze-and-excitation gates from other products.

    A product x · g is a gate if g is computed, through at least one layer, from an average of x. That average (the
    squeeze) is folded away, and so is an average that normalises its own input. Products that are no gate are folded
    away later. Returns the node type of every step, and the averages to fold away.
    """
    kinds = [step.kind for step in steps]
    dropped: set[int] = set()
    for index, step in enumerate(steps):
        if step.kind not in ("mul", "sum") or len(step.operands) != 2:
            continue
        for value, gate in (step.operands, step.operands[::-1]):
            squeezes, normalisers = _averages_of(steps, value, gate)
            dropped |= normalisers
            if squeezes and step.kind == "mul":
                kinds[index] = "cse"
                dropped |= squeezes
    return kinds, dropped


def _averages_of(steps: Sequence[Step], value: Sources, gate: Sources) -> tuple[set[int], set[int]]:
    """Averages of ``value`` from which ``gate`` is computed: those through a layer, and those without one."""
    averages: tuple[set[int], set[int]] = (set(), set())
    first = min(value)
    stack = [(step, False) for step in gate]
    seen = set(stack)
    while stack:
        step, learned = stack.pop()
        if step in value or step < first:
            continue
        if (steps[step].kind == "glob_avg" or steps[step].whole) and steps[step].inputs == value:
            averages[not learned].add(step)
            continue
        learned = learned or steps[step].kind in LAYERS
        new = {(source, learned) for source in steps[step].inputs} - seen
        seen |= new
        stack.extend(new)
    return averages


def fold(steps: Sequence[Step], kinds: Sequence[str], dropped: set[int]) -> tuple[list[Sources], list[Sources]]:
    """Connects the inputs of unnamed steps, and of joins with a single remaining operand, to their users.

    Returns what each step stands for as a source, and its inputs.
    """
    resolved: list[Sources] = []
    inputs: list[Sources] = []
    for index, step in enumerate(steps):
        entering = union(*(resolved[source] for source in step.inputs))
        operands = {union(*(resolved[source] for source in operand)) for operand in step.operands} - {()}
        single = kinds[index] in _JOINS and len(operands) <= 1
        constant = bool(step.inputs) and not entering and not step.params  # of a layer that was moved to its real use
        folded = kinds[index] in _UNNAMED or index in dropped or single or constant
        resolved.append(entering if folded else (index,))
        inputs.append(() if folded else entering)
    return resolved, inputs


def classifier(steps: Sequence[Step], output: Sources) -> list[int]:
    """The weights (and biases) of the last layers before the main output, in ascending order.

    There are several if the output joins several heads. There are none if a norm comes last, if a layer's result is
    added to a residual stream, or for products such as similarities.
    """
    layers: set[int] = set()
    reached = list(output)
    for index in reached:  # grows
        step = steps[index]
        if step.kind == "bias" and step.params:
            layers.update((index, *(source for source in step.inputs if steps[source].kind in WEIGHTS)))
        elif step.kind in WEIGHTS and step.params:
            layers.add(index)
        elif step.kind in _AFTER_CLASSIFIER and step.inputs:
            reached += [source for source in step.inputs if source not in reached]
        else:
            return []
    # A weight precedes its own bias, but no layer may precede another.
    before = [source for layer in layers for source in steps[layer].inputs if source not in layers]
    before += [source for layer in layers if steps[layer].kind in WEIGHTS for source in steps[layer].inputs]
    return [] if layers & with_ancestors(before, [step.inputs for step in steps]) else sorted(layers)


def with_ancestors(start: Iterable[int], inputs: Sequence[Sources]) -> set[int]:
    """``start`` and everything that it is computed from."""
    reached = set(start)
    for index in range(len(inputs) - 1, -1, -1):
        if index in reached:
            reached.update(inputs[index])
    return reached


def pool_before_classifier(
    steps: Sequence[Step], inputs: list[Sources], output: Sources, layer: Sequence[int]
) -> int | None:
    """Moves a global average that follows the last layer (SqueezeNet) before it, and returns the average."""
    if len(output) != 1 or not layer or steps[output[0]].kind != "glob_avg" or inputs[output[0]] != (layer[-1],):
        return None
    pool = output[0]
    if any(pool in sources for sources in inputs):
        return None
    inputs[pool], inputs[layer[0]] = inputs[layer[0]], (pool,)
    return pool
