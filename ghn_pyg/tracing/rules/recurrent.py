"""Rules for recurrent layers, and for packed sequences, whose lengths have data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...utils.compat import PACK_SEQUENCE, PAD_SEQUENCE, RECURRENT, RECURRENT_CELLS
from ...utils.nested_tensors import map_tensors, tensors_in
from ..kept_reasons import Kept
from ..tracer import Tracer, rule
from ..values import CONSTANT, Value
from .layer_steps import bias_step, weight_step


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
    state, weights, _, _, _, _, bidirectional = args[1:8] if packed else args[:7]
    states = list(tensors_in([state]))
    value = _step(tracer, data, states, weights)
    out = tracer.emit((*data.shape[:-1], states[0].shape[-1] * (1 + bidirectional)), data.dtype, value)
    return (out, *(tracer.emit(tensor.shape, tensor.dtype, value) for tensor in states))


@rule(*RECURRENT_CELLS)
def cell(tracer: Tracer, data: Tensor, state: Any, *weights: Tensor | None) -> Any:
    """One time step of a recurrent layer."""
    of_input, of_state, *biases = weights
    value = _step(tracer, data, list(tensors_in([state])), (of_input, *biases[:1], of_state, *biases[1:]))
    return map_tensors(lambda tensor: tracer.emit(tensor.shape, tensor.dtype, value), state)


def _step(tracer: Tracer, data: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor | None]) -> Value:
    """Records matrices and biases one after the other; a learned initial state is kept."""
    entering = tracer.merged((data, *states))
    sources = tracer.fold(entering.params, Kept.TOKEN, entering.sources)
    for tensor in weights:
        if tensor is not None and tensor.dim() > 1:
            sources = weight_step(tracer, "conv", sources, tensor, None)
        else:
            sources = bias_step(tracer, sources, tensor)
    return Value(sources)
