"""What is known of the axes of a network's tensors, while it runs and after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .axes import Axis, atoms, fresh, unite_dimensions

Dimension = tuple[Axis, ...]  # a product; empty for size 1
Owner = tuple[str, int]  # a parameter and one of its dimensions
_MOST_MOMENTS: Final = 4096  # channels; their squares are kept
_ROWS: Final = 8  # for each channel


@dataclasses.dataclass(frozen=True)
class Followed:
    """What is known of a tensor.

    Args:
        axes: The axes of each dimension.
        owners: The dimensions of parameters that each dimension comes from, for tensors made of parameters alone.
        step: The number of the operator that made it out of activations; -1 for others.
        tail: Parameters that make it zero where they are zero, or None.
        chosen: Entries of axes that were selected, such as the queries of queries, keys and values.
    """

    axes: tuple[Dimension, ...]
    owners: tuple[frozenset[Owner], ...] = ()
    step: int = -1
    tail: frozenset[str] | None = None
    chosen: frozenset[tuple[Axis, int]] = frozenset()


@dataclasses.dataclass
class Residual:
    """A sum of an activation and of what was computed from it: zeros in ``tail`` make it the identity."""

    inside: frozenset[str]
    tail: frozenset[str]


@dataclasses.dataclass
class Axes:
    """The axes of a network's parameters and buffers.

    Args:
        dimensions: The axes of each dimension, by name.
        read: Dimensions that are summed over: the input channels.
        kernel: Dimensions that are places of a kernel.
        table: Dimensions whose entries are looked up: tokens, positions.
        output: Axes of the output.
        contracted: Selected entries at which an axis of two activations is summed over, such as queries and keys.
        residuals: Sums that can be identities.
        scaled: Of tables that are weights of a layer too, the dimension that is read, and parameters that scale what
            it reads.
        order: Parameters and buffers by first use.
        square: Weights of layers whose output has the shape of their input.
        moments: Second moments of the channels that are read, if they were asked for.
    """

    dimensions: dict[str, tuple[Dimension, ...]]
    read: set[Owner] = dataclasses.field(default_factory=set)
    kernel: set[Owner] = dataclasses.field(default_factory=set)
    table: set[Owner] = dataclasses.field(default_factory=set)
    output: set[Axis] = dataclasses.field(default_factory=set)
    contracted: list[tuple[Axis, frozenset[tuple[Axis, int]]]] = dataclasses.field(default_factory=list)
    residuals: list[Residual] = dataclasses.field(default_factory=list)
    scaled: dict[Owner, frozenset[str]] = dataclasses.field(default_factory=dict)
    order: dict[str, int] = dataclasses.field(default_factory=dict)
    square: set[str] = dataclasses.field(default_factory=set)
    moments: dict[Owner, Tensor] = dataclasses.field(default_factory=dict)


class Notes:
    """Collects the axes while operators run."""

    def __init__(self, tensors: Mapping[str, Tensor], moments: bool) -> None:
        self.moments = moments
        self.tensors: Any = WeakTensorKeyDictionary()
        self.result = Axes({})
        self.parents: list[int] = []  # the ancestors of each step, as bits
        self.used: list[frozenset[str]] = []  # the parameters that each step uses
        for name, tensor in tensors.items():
            axes = tuple(fresh(size) for size in tensor.shape)
            self.result.dimensions[name] = axes
            owners = tuple(frozenset({(name, each)}) for each in range(tensor.dim()))
            self.tensors[tensor] = Followed(axes, owners, tail=frozenset({name}))

    def known(self, tensor: Tensor) -> Followed:
        """What is known of a tensor; one that is met for the first time has axes of its own."""
        found = self.tensors.get(tensor)
        if found is None or len(found.axes) != tensor.dim():
            found = Followed(tuple(fresh(size) for size in tensor.shape), step=self.step([], frozenset()))
            self.tensors[tensor] = found
        return found

    def step(self, inputs: Sequence[Followed], parameters: frozenset[str]) -> int:
        """Notes that an operator computes with activations, and returns its number."""
        ancestors = 0
        for each in inputs:
            if each.step >= 0:
                ancestors |= self.parents[each.step] | 1 << each.step
        self.parents.append(ancestors)
        self.used.append(parameters)
        return len(self.parents) - 1

    def reads(self, tensor: Followed, dimension: int) -> None:
        """Notes that a dimension of a parameter is summed over."""
        if tensor.step < 0 and tensor.owners:
            self.result.read |= tensor.owners[dimension]

    def measure(self, weight: Followed, dimension: int, channels: Tensor) -> None:
        """Adds the second moments of activations, whose last dimension a weight reads."""
        if self.moments and weight.step < 0 and weight.owners and channels.shape[-1] <= _MOST_MOMENTS:
            values = channels.reshape(-1, channels.shape[-1])
            values = values[:: max(1, len(values) // (_ROWS * values.shape[1]))].cpu().double()
            for owner in weight.owners[dimension]:
                self.result.moments[owner] = self.result.moments.get(owner, 0) + values.T @ values / len(values)

    def contract(self, one: Followed, i: int, other: Followed, j: int) -> None:
        """Notes that two dimensions are multiplied and summed."""
        unite_dimensions(one.axes[i], other.axes[j])
        if one.step >= 0 and other.step >= 0:
            for atom in atoms(one.axes[i]):
                self.result.contracted.append((atom, one.chosen | other.chosen))
            return
        weight, dimension, read = (other, j, one) if other.step < 0 else (one, i, other)
        self.reads(weight, dimension)
        if read.tail and weight.owners and any((name, 0) in self.result.table for name, _ in weight.owners[dimension]):
            self.result.scaled |= dict.fromkeys(weight.owners[dimension], read.tail)

    def add(self, one: Followed, other: Followed) -> None:
        """Notes a residual sum."""
        for skip, branch in ((one, other), (other, one)):
            ancestors = self.parents[branch.step]
            if branch.tail and (ancestors >> skip.step) & 1:
                between = [
                    step for step in range(skip.step + 1, branch.step + 1)
                    if (ancestors >> step & 1 or step == branch.step) and self.parents[step] >> skip.step & 1
                ]  # fmt: skip
                inside = frozenset().union(*(self.used[step] for step in between))
                self.result.residuals.append(Residual(inside, branch.tail))
                return
