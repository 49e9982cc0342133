"""Rules for sequences of several lengths that are packed into one tensor, whose lengths have values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .tracer import CONSTANT, Rule, Tracer, rule


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


def _recurrent(function: Callable[..., Any]) -> Rule:
    """A recurrent layer, of packed sequences when their numbers come second."""

    def recurrent(tracer: Tracer, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(args[1], Tensor) or args[1].is_floating_point():
            return tracer.default(function, args, kwargs)
        data, _, state, _, _, _, _, _, bidirectional = args
        states = state if isinstance(state, (list, tuple)) else (state,)
        value = tracer.value(data) or CONSTANT
        out = tracer.emit((data.shape[0], states[0].shape[-1] * (1 + bidirectional)), data.dtype, value)
        return (out, *(tracer.emit(tensor.shape, tensor.dtype, value) for tensor in states))

    return recurrent


for _function in (torch._VF.lstm, torch._VF.gru, torch._VF.rnn_tanh, torch._VF.rnn_relu):
    rule(_function)(_recurrent(_function))
