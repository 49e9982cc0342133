"""Rules for the functions that are norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kept_reasons import Kept, enters
from ..steps import Sources
from ..tracer import Tracer, rule
from .layer_steps import entered, expect, vector_spec
from .open_layers import opened


def _norm(
    tracer: Tracer, kind: str, x: Tensor, gain: Tensor | None, bias: Tensor | None, over: Sequence[int]
) -> Tensor:
    """The result of a norm over some dimensions; one without a gain is folded away, unless a gain follows."""
    if not tracer.sources(x) and (kind == "bn" or gain is None):  # weights that are standardised by a norm's function
        return tracer.emit(x.shape, x.dtype, tracer.merged(t for t in (x, gain, bias) if t is not None))
    sources = entered(tracer, x)
    if gain is not None and tracer.known(gain).added not in (0, 1):
        value = tracer.value(gain)
        sources, gain = tracer.fold(value.params if value else (), Kept.LAYER_SCALE, sources), None
    normed = norm_step(tracer, kind, sources, gain, bias)
    if normed == sources:
        normed = normalised_step(tracer, sources, (kind, tuple(dim - x.dim() for dim in over)))
    out = tracer.like(x, normed)
    return out if tracer.parameter(bias) is not None else opened(tracer, out)


def normalised_step(tracer: Tracer, inputs: Sources, norm: tuple[str, tuple[int, ...]]) -> Sources:
    """Records a value over a statistic of itself, with the norm's type and dimensions, counted from the last."""
    step = tracer.step("normalised", inputs) if inputs else inputs
    if step != inputs:  # inside of a layer with a handler nothing is recorded
        tracer.normalised[step[0]] = norm
    return step


def norm_step(tracer: Tracer, kind: str, inputs: Sources, gain: Tensor | None, bias: Tensor | None) -> Sources:
    """Records a norm: one node for gain and bias."""
    roles = (("gain", gain), ("bias", bias))
    named = {name: (role, tensor) for role, tensor in roles if (name := tracer.parameter(tensor)) is not None}
    named = {name: use for name, use in named.items() if tracer.folded.get(name) != Kept.FLAT}
    if len(named) < 2 and tracer.parameter(gain) == tracer.parameter(bias):
        return tracer.fold(named, enters("a norm as gain and bias at once"), inputs)
    params = tuple(
        vector_spec(name, tuple(tracer.parameters[name].shape), role, tracer.known(tensor).added)  # type: ignore[arg-type]
        for name, (role, tensor) in named.items()
    )
    return tracer.step(kind, inputs, params) if params else inputs


# Shapes are checked by hand: the meta kernels of norms take 2 ms, a hundred times as long as the rules.


@rule(F.batch_norm, F.instance_norm)
def batch_norm(
    tracer: Tracer, input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, *_: Any, **__: Any,
) -> Tensor:  # fmt: skip
    """Batch norm, also over a single image; running statistics stay as they are."""
    size = next((tensor.shape[0] for tensor in (weight, running_mean) if tensor is not None), input.shape[1])
    expect(size == input.shape[1], f"batch_norm expected {size} channels, got an input of shape {tuple(input.shape)}")
    return _norm(tracer, "bn", input, weight, bias, (0, *range(2, input.dim())))


@rule(F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm)
def layer_norm(
    tracer: Tracer, input: Tensor, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, *_: Any,
    **__: Any,
) -> Tensor:  # fmt: skip
    """Layer norm, or root-mean-square norm, which has no bias."""
    shape = tuple(normalized_shape)
    expect(
        tuple(input.shape[-len(shape) :]) == shape,
        f"layer_norm expected an input that ends in {shape}, got {tuple(input.shape)}",
    )
    over = range(input.dim() - len(shape), input.dim())
    return _norm(tracer, "ln", input, weight, bias if isinstance(bias, Tensor) else None, over)


@rule(F.group_norm, torch.group_norm)
def group_norm(
    tracer: Tracer, input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, *_: Any, **__: Any
) -> Tensor:
    """Group norm, which normalises each sample by itself as a layer norm does."""
    return _norm(tracer, "ln", input, weight, bias, range(1, input.dim()))
