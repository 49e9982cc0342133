"""Results of layers and norms without a bias: a parameter that is added to one is the bias.

A result stays *open* for its bias through what is linear in it and leaves its channels alone: sums of layers side by
side, products with constants or with one number for all channels (attention of a graph), reshapes, and aggregations.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..steps import LAYERS, WEIGHTS, Sources, channels, union
from ..tracer import Tracer
from ..values import CONSTANT


class Open(NamedTuple):
    """What waits for a bias, or has one and waits for another once its rows were mixed."""

    layers: Sources  # steps of layers side by side, or of one norm; none for the product of a constant and a weight
    sources: Sources  # where the result came from when this was noted: it is not open any more after a write
    channels: int
    mixed: bool = False  # whether rows were mixed since, as by an adjacency matrix


def opened(tracer: Tracer, tensor: Tensor) -> Tensor:
    """Notes that ``tensor`` is the result of a layer or norm that may still get its bias, or another."""
    if len(sources := tracer.sources(tensor)) == 1:
        tracer.origin(tensor).open = Open(sources, sources, tracer.steps[sources[0]].shape[0])
    return tensor


def open_in(tracer: Tracer, tensor: Any) -> Open | None:
    """The layers or norm whose bias may be added to ``tensor``."""
    found: Open | None = tracer.known(tensor).open if isinstance(tensor, Tensor) else None
    return found if found is not None and found.sources == tracer.sources(tensor) else None


def takes_bias(tracer: Tracer, found: Open) -> bool:
    """Whether layers have no bias, or have some that were mixed."""
    allowed = LAYERS if found.mixed else WEIGHTS
    return all(tracer.steps[layer].kind in allowed for layer in found.layers)


def summed(tracer: Tracer, *operands: Any) -> Open | None:
    """What a sum leaves open: layers without a bias beside other values, none of which comes after another.

    In a residual sum, a layer comes after the value that it is added to.
    """
    layers: Sources = ()
    others: Sources = ()
    sizes, mixed = set(), False
    for operand in operands:
        if (found := open_in(tracer, operand)) is not None and takes_bias(tracer, found):
            layers, mixed = union(layers, found.layers), mixed or found.mixed
            sizes.add(found.channels)
        elif not is_constant(tracer, operand):
            if (value := tracer.value(operand) or CONSTANT).params or not value.sources:
                return None
            others = union(others, value.sources)
    if len(sizes) != 1 or (others and not layers) or not _side_by_side(tracer, layers, others):
        return None
    return Open(layers, (), sizes.pop(), mixed)


def is_constant(tracer: Tracer, operand: Any) -> bool:
    """Whether an operand depends on neither activations nor parameters, but perhaps on indices and masks."""
    if not isinstance(operand, Tensor) or not tracer.is_abstract(operand):
        return True
    return tracer.value(operand) in (None, CONSTANT)


def constant_layer(tracer: Tracer, operand: Any, partner: Any) -> Sources | None:
    """Records the layer that the product of a constant and a weight is if it is added to the result of a layer."""
    ours, other = open_in(tracer, operand), open_in(tracer, partner)
    if ours is None or ours.layers or other is None or not other.layers:
        return None
    record = tracer.known(operand).factors
    layer: Sources | None = record() if callable(record) else None
    return layer


def _side_by_side(tracer: Tracer, layers: Sources, others: Sources) -> bool:
    """Whether none of these steps comes after another, and none is a position."""
    if any(tracer.steps[other].kind == "pos_enc" for other in others):
        return False
    steps = union(layers, others)
    waiting = [source for step in steps[1:] for source in tracer.steps[step].inputs]
    seen = set(waiting)
    while waiting:
        if (step := waiting.pop()) in steps:
            return False
        if step > steps[0]:
            new = set(tracer.steps[step].inputs) - seen
            seen |= new
            waiting += new
    return True


def multiplied(tracer: Tracer, value: Any, factor: Any) -> Open | None:
    """What is left open in ``value`` by a constant, or by activations with one number for all channels."""
    if (found := open_in(tracer, value)) is None or is_constant(tracer, factor):
        return found
    for_all = factor.shape[-1:] in ((), (1,)) and trailing(value.shape, found.channels) > 0
    return found if for_all and not (tracer.value(factor) or CONSTANT).params else None


def joined(tracer: Tracer, result: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Notes that layers whose channels were put one after the other, or that were stacked, are open for one bias."""
    found = [part for tensor in tensors if (part := summed(tracer, tensor)) and part.channels == tensor.shape[-1]]
    layers, sizes = union(*(part.layers for part in found)), sum(part.channels for part in found)
    if layers and len(found) == len(tensors) and result.shape[-1] in (sizes, found[0].channels):
        tracer.origin(result).open = Open(layers, tracer.sources(result), result.shape[-1])
    return result


def carry(tracer: Tracer, result: Tensor, found: Open | None, shape: Sequence[int]) -> Tensor:
    """Notes what ``result`` leaves open of a value of this shape, unless its channels were touched."""
    if found is not None and (result.shape == shape or alike(result.shape, shape, found.channels)):
        tracer.origin(result).open = found._replace(sources=tracer.sources(result))
    return result


def alike(shape: Sequence[int], before: Sequence[int], channels: int) -> bool:
    """Whether the last dimensions, which are the channels, are the same as before."""
    return (run := trailing(before, channels)) > 0 and shape[-run:] == before[-run:]


def reduced(tracer: Tracer, result: Tensor, value: Tensor, dims: Collection[int]) -> Tensor:
    """Notes what a sum or mean over ``dims`` leaves open; over the heads of a layer, these share a bias."""
    found = open_in(tracer, value)
    if found is None or value.dim() - 1 in dims or not takes_bias(tracer, found._replace(mixed=True)):
        return result
    if run := trailing(value.shape, found.channels):
        heads = math.prod(value.shape[dim] for dim in dims if dim >= value.dim() - run)
        tracer.origin(result).open = found._replace(sources=tracer.sources(result), channels=found.channels // heads)
    return result


def has_heads(tracer: Tracer, value: Tensor) -> bool:
    """Whether the last dimensions of a layer's result are heads and their features."""
    of_layer = channels(tracer.steps, tracer.sources(value))
    return value.shape[-1] < of_layer and trailing(value.shape, of_layer) == 2


def trailing(shape: Sequence[int], channels: int) -> int:
    """How many of the last dimensions, such as heads and their features, are the channels; 0 if none are."""
    size = 1
    for run, along in enumerate(reversed(shape), start=1):
        size *= along
        if size >= channels:
            return run if size == channels else 0
    return 0
