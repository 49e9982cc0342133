"""Rules for recurrent layers, and for packed sequences, whose lengths have data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...utils.compat import PACK_SEQUENCE, PAD_SEQUENCE, RECURRENT, RECURRENT_CELLS
from ...utils.nested_tensors import map_tensors, tensors_in
from ..steps import Sources
from ..tracer import Tracer, rule
from ..values import CONSTANT, Value
from .layer_steps import entered, weight_step


@rule(*PACK_SEQUENCE)
def pack(tracer: Tracer, input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """The time steps of all sequences, and how many sequences have each of them."""
    steps, features = input.shape[1 if batch_first else 0], tuple(input.shape[2:])
    known = lengths if not tracer.is_abstract(lengths) else torch.full(tuple(lengths.shape), steps, device="cpu")
    sizes = (known[None] > torch.arange(int(known.max()), device="cpu")[:, None]).sum(1)
    return tracer.emit((int(known.sum()), *features), input.dtype, tracer.value(input) or CONSTANT), sizes


@rule(*PAD_SEQUENCE)
def pad(
    tracer: Tracer, data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: Any, total_length: int
) -> tuple[Tensor, Tensor]:
    """The padded sequences, and their lengths."""
    steps, batch = max(batch_sizes.numel(), total_length), int(batch_sizes[0])
    shape = (batch, steps) if batch_first else (steps, batch)
    lengths = (batch_sizes[:, None] > torch.arange(batch, device="cpu")).sum(0)
    return tracer.emit((*shape, *data.shape[1:]), data.dtype, tracer.value(data) or CONSTANT), lengths


@rule(*RECURRENT)
def recurrent(tracer: Tracer, data: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """A recurrent layer; for packed sequences the second argument is the number of sequences at each time step."""
    packed = isinstance(args[0], Tensor) and not args[0].is_floating_point()
    state, weights, has_biases, layers, _, _, bidirectional = args[1:8] if packed else args[:7]
    states, directions = list(tensors_in([state])), 1 + bidirectional
    of_states, entering = [entered(tracer, tensor) for tensor in states], entered(tracer, data)
    count = len(weights) // (layers * directions)
    cells = [_reordered(weights[start : start + count], has_biases) for start in range(0, len(weights), count)]
    for layer in range(layers):  # of which each sees both directions of the one before
        both = cells[layer * directions : (layer + 1) * directions]
        # Without a given state, the state is computed from the data alone.
        ends = [
            _step(tracer, entering, of_states[0] or entering, _carried(of_states, states, cell), cell) for cell in both
        ]
        entering = tracer.join("concat", ends)
    value = Value(entering)
    out = tracer.emit((*data.shape[:-1], states[0].shape[-1] * directions), data.dtype, value)
    return (out, *(tracer.emit(tensor.shape, tensor.dtype, value) for tensor in states))


def _reordered(weights: Sequence[Tensor], has_biases: bool) -> Sequence[Any]:
    """The weights and biases of input and state, and perhaps the weight of a projection."""
    return weights if has_biases else (*weights[:2], None, None, *weights[2:])


@rule(*RECURRENT_CELLS)
def cell(tracer: Tracer, data: Tensor, state: Any, *weights: Any) -> Any:
    """One time step of a recurrent layer."""
    states = list(tensors_in([state]))
    entering, *of_states = [entered(tracer, tensor) for tensor in (data, *states)]
    value = Value(_step(tracer, entering, of_states[0], _carried(of_states, states, weights), weights))
    return map_tensors(lambda tensor: tracer.emit(tensor.shape, tensor.dtype, value), state)


def _carried(of_states: Sequence[Sources], states: Sequence[Tensor], weights: Sequence[Any]) -> Sources:
    """The state that gates add to the new one: that of a GRU, or the memory of an LSTM."""
    return of_states[-1] if weights[0].shape[0] > states[-1].shape[-1] else ()


def _step(tracer: Tracer, data: Sources, state: Sources, carried: Sources, weights: Sequence[Any]) -> Sources:
    """Records layers of the input and of the state side by side, their sum, and the projection of an LSTM."""
    of_input, of_state, input_bias, state_bias, *projections = weights
    sides = ((data, of_input, input_bias), (state, of_state, state_bias))
    new = tracer.join("sum", [weight_step(tracer, "conv", *side) for side in sides])
    new = tracer.join("sum", [new, carried])
    for projection in projections:
        new = weight_step(tracer, "conv", new, projection, None)
    return new
