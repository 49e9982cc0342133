"""Rewrite passes: recorded steps → the nodes and edges of the graph (spec: fold away what carries no meaning)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from .steps import Sources, Step, union

_LAYER = frozenset(("conv", "sep_conv", "dil_conv", "bias"))
_WEIGHT = _LAYER - {"bias"}
_UNNAMED = frozenset(("softmax", "mul", "product", "table", "statistic", "centred", "normalised"))
_JOINS = frozenset(("sum", "concat"))
_THROUGH = _JOINS | {"glob_avg", "avg_pool", "max_pool", "softmax", "statistic", "centred", "normalised"}


def rewrite(steps: list[Step], output: Sources) -> tuple[list[Step], list[str], list[Sources], list[int]]:
    """Applies all passes.

    Args:
        steps: Steps in the order in which they were recorded; every input comes before its user. Not changed.
        output: What the main output is computed from.

    Returns:
        The nodes' steps in topological order (the input first, the main classifier last), the type and the
        predecessors of each, and the positions of the classification layer's weight and bias.
    """
    kinds, dropped = resolve_gates(steps)
    resolved, inputs = fold(steps, kinds, dropped)
    layer = classifier(steps, output)
    output = union(*(resolved[source] for source in output))
    pool_before_classifier(steps, inputs, output, layer)
    connect_to_input(steps, inputs)
    alive = prune(steps, inputs, output)
    order = topological_order(inputs, alive, last=layer[-1] if layer else None)
    position = {step: place for place, step in enumerate(order)}
    edges = [tuple(sorted(position[source] for source in inputs[step])) for step in order]
    nodes = [steps[step] for step in order]
    return nodes, [kinds[step] for step in order], edges, [position[step] for step in layer]


def resolve_gates(steps: Sequence[Step]) -> tuple[list[str], set[int]]:
    """Tells squeeze-and-excitation gates from other products.

    A product x · g is a gate when g is computed, through at least one layer, from an average of x. The average (the
    squeeze) is folded away with every product that is no gate, as is an average that normalises its own input.

    Returns:
        The node type of every step, and the averages to fold away.
    """
    kinds = [step.kind for step in steps]
    dropped: set[int] = set()
    for position, step in enumerate(steps):
        if step.kind not in ("mul", "sum") or len(step.operands) != 2:
            continue
        for value, gate in (step.operands, step.operands[::-1]):
            squeezes, normalisers = _averages_of(steps, value, gate)
            dropped |= normalisers
            if squeezes and step.kind == "mul":
                kinds[position] = "cse"
                dropped |= squeezes
    return kinds, dropped


def _averages_of(steps: Sequence[Step], value: Sources, gate: Sources) -> tuple[set[int], set[int]]:
    """Averages of ``value`` that ``gate`` is computed from: through a layer, and without one."""
    found: tuple[set[int], set[int]] = (set(), set())
    first = min(value)
    stack = [(step, False) for step in gate]
    seen = set(stack)
    while stack:
        step, learned = stack.pop()
        if step in value or step < first:
            continue
        if (steps[step].kind == "glob_avg" or steps[step].whole) and steps[step].inputs == value:
            found[not learned].add(step)
            continue
        learned = learned or steps[step].kind in _LAYER
        new = {(source, learned) for source in steps[step].inputs} - seen
        seen |= new
        stack.extend(new)
    return found


def fold(steps: Sequence[Step], kinds: Sequence[str], dropped: set[int]) -> tuple[list[Sources], list[Sources]]:
    """Joins the inputs of unnamed steps, and of joins with a single remaining operand, to their users.

    Returns:
        What each step stands for as a source, and its inputs.
    """
    resolved: list[Sources] = []
    inputs: list[Sources] = []
    for position, step in enumerate(steps):
        entering = union(*(resolved[source] for source in step.inputs))
        operands = {union(*(resolved[source] for source in operand)) for operand in step.operands} - {()}
        single = kinds[position] in _JOINS and len(operands) <= 1
        gone = kinds[position] in _UNNAMED or position in dropped or single
        resolved.append(entering if gone else (position,))
        inputs.append(() if gone else entering)
    return resolved, inputs


def classifier(steps: Sequence[Step], output: Sources) -> list[int]:
    """The weights (and biases) of the last layers before the main output, in ascending order.

    There are several where the output joins several heads, and none where it is no layer's: when a norm comes last,
    when a layer's result is added to a residual stream, or for products such as similarities.
    """
    found: set[int] = set()
    seen: set[int] = set()
    waiting = list(output)
    while waiting:
        position = waiting.pop()
        if position in seen:
            continue
        seen.add(position)
        step = steps[position]
        if step.kind == "bias" and step.params:
            found.update((position, *(source for source in step.inputs if steps[source].kind in _WEIGHT)))
        elif step.kind in _WEIGHT and step.params:
            found.add(position)
        elif step.kind in _THROUGH and step.inputs:
            waiting.extend(step.inputs)
        else:
            return []
    return [] if found & _before(steps, found) else sorted(found)


def _before(steps: Sequence[Step], layers: set[int]) -> set[int]:
    """What ``layers`` are computed from, but for the weights that their own biases follow."""
    before: set[int] = set()
    waiting = [source for layer in layers for source in steps[layer].inputs if source not in layers]
    waiting += [source for layer in layers if steps[layer].kind in _WEIGHT for source in steps[layer].inputs]
    while waiting:
        position = waiting.pop()
        if position not in before:
            before.add(position)
            waiting.extend(steps[position].inputs)
    return before


def pool_before_classifier(steps: Sequence[Step], inputs: list[Sources], output: Sources, layer: Sequence[int]) -> None:
    """Normalises a head that pools after its last layer (SqueezeNet): the average moves before the layer."""
    if len(output) != 1 or not layer or steps[output[0]].kind != "glob_avg" or inputs[output[0]] != (layer[-1],):
        return
    pool = output[0]
    if any(pool in sources for sources in inputs):
        return
    inputs[pool], inputs[layer[0]] = inputs[layer[0]], (pool,)


def connect_to_input(steps: Sequence[Step], inputs: list[Sources]) -> None:
    """Gives every node without a predecessor an edge from the input; learned positions stay roots."""
    for position, step in enumerate(steps[1:], start=1):
        if not inputs[position] and step.kind != "pos_enc":
            inputs[position] = (0,)


def prune(steps: Sequence[Step], inputs: Sequence[Sources], output: Sources) -> list[int]:
    """Steps that hold parameters or lead to the output or to such a step."""
    used = set(output)
    for position in range(len(steps) - 1, -1, -1):
        if position in used or steps[position].params:
            used.add(position)
            used.update(inputs[position])
    return sorted(used | {0})


def topological_order(inputs: Sequence[Sources], alive: Sequence[int], last: int | None) -> list[int]:
    """Kahn's algorithm, earliest recorded first; ``last`` goes to the end when nothing depends on it."""
    waiting = {step: len(inputs[step]) for step in alive}
    users: dict[int, list[int]] = {step: [] for step in alive}
    for step in alive:
        for source in inputs[step]:
            users[source].append(step)
    ready = [step for step in alive if not waiting[step]]
    heapq.heapify(ready)
    order = []
    while ready:
        step = heapq.heappop(ready)
        order.append(step)
        for user in users[step]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)
    assert len(order) == len(alive), "recorded steps form a cycle"
    if last is not None and not users[last]:
        order.remove(last)
        order.append(last)
    return order
