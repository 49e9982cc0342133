"""One recorded operation of a forward pass, which may become a node of the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from ..graph.arch_data import NO_SHAPE, NodeShape, ParamSpec

WEIGHTS: Final = frozenset(("conv", "sep_conv", "dil_conv"))
LAYERS: Final = WEIGHTS | {"bias"}
"""Types of the nodes of layers: those of their weights, and also that of their biases."""
_WITH_CHANNELS: Final = LAYERS | {"bn", "ln"}

Sources = tuple[int, ...]
"""Indices of the steps that a value is computed from directly, ascending, without repeats."""


@dataclasses.dataclass(slots=True, eq=False)
class Step:
    """A recorded operation."""

    # A node type, or a type that the passes resolve or fold away: "softmax", "mul", "product" of two values, "table" of
    # a kept parameter, and "statistic", "centred", "shifted" and "normalised" of handwritten norms
    kind: str
    inputs: Sources  # steps whose values enter
    scope: str = ""  # path of the module in whose forward pass it was recorded
    params: tuple[ParamSpec, ...] = ()  # decoded from it
    shape: NodeShape = NO_SHAPE  # as the node's encoding sees it
    operands: tuple[Sources, ...] = ()  # for a join, the sources of each operand
    whole: bool = False  # whether a pool averages the whole map at once


def channels(steps: Sequence[Step], sources: Sources) -> int:
    """Channels of the nearest layer or norm that a value comes from; 0 if there is none."""
    while sources and steps[sources[0]].kind not in _WITH_CHANNELS:
        sources = steps[sources[0]].inputs
    return steps[sources[0]].shape[0] if sources else 0


def union(*groups: Sources) -> Sources:
    """The distinct steps of all ``groups``, in ascending order."""
    distinct = {group for group in groups if group}
    if len(distinct) <= 1:
        return next(iter(distinct), ())
    return tuple(sorted(set().union(*distinct)))
