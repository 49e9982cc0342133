"""Rules for the functions that are norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...graph.arch_data import ParamSpec
from ..kept import Kept, enters
from ..steps import Sources
from ..tracer import Tracer, rule
from .layers import entered, expect


def norm_step(tracer: Tracer, kind: str, x: Tensor, gain: Tensor | None, bias: Tensor | None) -> Tensor:
    """A norm's result; a norm without a gain is folded away."""
    if not tracer.sources(x) and (kind == "bn" or gain is None):  # weights that are standardised by a norm's function
        return tracer.emit(x.shape, x.dtype, tracer.merged(t for t in (x, gain, bias) if t is not None))
    sources = entered(tracer, x)
    if gain is not None and tracer.origin(gain).added not in (0, 1):
        value = tracer.value(gain)
        sources, gain = tracer.fold(value.params if value else (), Kept.LAYER_SCALE, sources), None
    out = tracer.like(x, norm_sources(tracer, kind, sources, gain, bias))
    return out if gain is None or bias is not None else tracer.opened(out)


def norm_sources(tracer: Tracer, kind: str, inputs: Sources, gain: Tensor | None, bias: Tensor | None) -> Sources:
    """Records a norm: one node for gain and bias."""
    roles = (("gain", gain), ("bias", bias))
    found = {name: (role, tensor) for role, tensor in roles if (name := tracer.parameter(tensor)) is not None}
    if len(found) < 2 and tracer.parameter(gain) == tracer.parameter(bias):
        return tracer.fold(found, enters("a norm as gain and bias at once"), inputs)
    params = tuple(
        ParamSpec(name, tuple(tracer.parameters[name].shape), role, added=tracer.origin(tensor).added)  # type: ignore[arg-type]
        for name, (role, tensor) in found.items()
    )
    return tracer.step(kind, inputs, params) if params else inputs


@rule(F.batch_norm)
def batch_norm(
    tracer: Tracer, input: Tensor, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, *_: Any,
    **__: Any,
) -> Tensor:  # fmt: skip
    """Batch norm; running statistics stay as they are."""
    size = next((tensor.shape[0] for tensor in (weight, running_mean) if tensor is not None), input.shape[1])
    expect(size == input.shape[1], f"batch_norm expected {size} channels, got an input of shape {tuple(input.shape)}")
    return norm_step(tracer, "bn", input, weight, bias)


@rule(F.instance_norm)
def instance_norm(
    tracer: Tracer, input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, *_: Any, **__: Any,
) -> Tensor:  # fmt: skip
    """Instance norm, a batch norm over one image."""
    return norm_step(tracer, "bn", input, weight, bias)


@rule(F.layer_norm, torch.layer_norm)
def layer_norm(
    tracer: Tracer, input: Tensor, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, *_: Any,
    **__: Any,
) -> Tensor:  # fmt: skip
    """Layer norm."""
    shape = tuple(normalized_shape)
    expect(
        tuple(input.shape[-len(shape) :]) == shape,
        f"layer_norm expected an input that ends in {shape}, got {tuple(input.shape)}",
    )
    return norm_step(tracer, "ln", input, weight, bias)


@rule(F.rms_norm, torch.rms_norm)
def rms_norm(
    tracer: Tracer, input: Tensor, normalized_shape: Sequence[int], weight: Any = None, *_: Any, **__: Any
) -> Tensor:
    """Root-mean-square norm: a layer norm without bias."""
    return layer_norm(tracer, input, normalized_shape, weight)


@rule(F.group_norm, torch.group_norm)
def group_norm(
    tracer: Tracer, input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, *_: Any, **__: Any
) -> Tensor:
    """Group norm, which normalises every sample for itself as a layer norm does."""
    return norm_step(tracer, "ln", input, weight, bias)
