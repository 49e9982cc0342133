"""Rules for recurrent layers, and for sequences of several lengths in one tensor, whose lengths have values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...utils.nested_tensors import tensors_in
from ..kept import Kept
from ..tracer import Tracer, rule
from ..values import CONSTANT, Value
from .layers import bias_step, weight_step


@rule(torch._VF._pack_padded_sequence)
def pack(tracer: Tracer, input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """The steps of all sequences one after the other, and how many sequences have each."""
    steps, features = input.shape[1 if batch_first else 0], tuple(input.shape[2:])
    known = lengths if not tracer.is_abstract(lengths) else torch.full(tuple(lengths.shape), steps, device="cpu")
    sizes = (known[None] > torch.arange(int(known.max()), device="cpu")[:, None]).sum(1)
    return tracer.emit((int(known.sum()), *features), input.dtype, tracer.value(input) or CONSTANT), sizes


@rule(torch._VF._pad_packed_sequence)
def pad(
    tracer: Tracer, data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: Any, total_length: int
) -> tuple[Tensor, Tensor]:
    """The sequences apart again, and their lengths."""
    steps, batch = max(batch_sizes.numel(), total_length), int(batch_sizes[0])
    shape = (batch, steps) if batch_first else (steps, batch)
    lengths = (batch_sizes[:, None] > torch.arange(batch, device="cpu")).sum(0)
    return tracer.emit((*shape, *data.shape[1:]), data.dtype, tracer.value(data) or CONSTANT), lengths


@rule(torch._VF.lstm, torch._VF.gru, torch._VF.rnn_tanh, torch._VF.rnn_relu)
def recurrent(tracer: Tracer, data: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """A recurrent layer, however long its sequences are; packed ones come with the number of those at each step."""
    packed = isinstance(args[0], Tensor) and not args[0].is_floating_point()
    state, weights, _, _, _, _, bidirectional = args[1:8] if packed else args[:7]
    states = list(tensors_in([state]))
    value = _step(tracer, data, states, weights)
    out = tracer.emit((*data.shape[:-1], states[0].shape[-1] * (1 + bidirectional)), data.dtype, value)
    return (out, *(tracer.emit(tensor.shape, tensor.dtype, value) for tensor in states))


@rule(torch._VF.lstm_cell, torch._VF.gru_cell, torch._VF.rnn_tanh_cell, torch._VF.rnn_relu_cell)
def cell(tracer: Tracer, data: Tensor, state: Any, *weights: Tensor | None) -> Any:
    """One step of a recurrent layer."""
    states, (into, onwards, *biases) = list(tensors_in([state])), weights
    value = _step(tracer, data, states, (into, *biases[:1], onwards, *biases[1:]))
    found = tuple(tracer.emit(tensor.shape, tensor.dtype, value) for tensor in states)
    return found[0] if isinstance(state, Tensor) else found


def _step(tracer: Tracer, data: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor | None]) -> Value:
    """Records matrices and biases one after the other; a first state that is learned is kept."""
    entering = tracer.merged((data, *states))
    sources = tracer.fold(entering.params, Kept.TOKEN, entering.sources)
    for tensor in weights:
        if tensor is not None and tensor.dim() > 1:
            sources = weight_step(tracer, "conv", sources, tensor, None)
        else:
            sources = bias_step(tracer, sources, tensor)
    return Value(sources)
