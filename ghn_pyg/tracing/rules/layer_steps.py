"""Records layers with a weight: which parameters a weight or bias is made of, and how each of them is stored."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ...graph.arch_data import Layout, ParamSpec
from ..kept_reasons import Kept, enters
from ..steps import Sources, union
from ..tracer import Tracer
from ..values import CONSTANT, Value
from ..weight_parts import Part, is_split, known_parts, parts_of, runs_along, specification, stacked_in
from .open_layers import open_in, opened, takes_bias


def weight_step(
    tracer: Tracer, kind: str, inputs: Sources, weight: Tensor, bias: Tensor | None, layout: Layout = "out_in",
    groups: int = 1,
) -> Sources:  # fmt: skip
    """Records a layer: its weight and, if it has one, its bias; a weight that is not a parameter is folded away."""
    if (name := _whole(tracer, weight)) is not None and weight.dim() > 1:
        spec = ParamSpec(name, tuple(weight.shape), "weight", layout, groups)
        return bias_step(tracer, tracer.step(kind, inputs, (spec,)), bias)
    specs = []
    parts = parts_of(tracer, weight) or _modulated(tracer, weight)
    for part in [part for part in parts if runs_along(part)] or parts:
        if _is_flat(tracer, weight, part):
            continue
        shape = tuple(tracer.parameters[part.name].shape)
        stacked = max(stacked_in(part, shape), len(shape) - weight.dim())
        specs.append(ParamSpec(part.name, shape, "weight", *_stored(part, layout, groups), stacked))
    return _layer(tracer, kind, inputs, weight, specs, bias)


def matrix_step(tracer: Tracer, inputs: Sources, weight: Tensor, roles: str, bias: Tensor | None) -> Sources | None:
    """Records a linear layer; ``None`` if no parameter of its weight is a matrix.

    ``roles`` says for each dimension of the weight whether it is of the output (``o``), input (``i``) or a stack
    (``s``).
    """
    if roles == "oi" and _whole(tracer, weight) is not None:
        return weight_step(tracer, "conv", inputs, weight, bias)
    parts = [part for part in parts_of(tracer, weight) if not _is_flat(tracer, weight, part)]
    specs = []
    for part in parts:
        if _is_row(tracer, weight, part):
            continue
        if (spec := specification(tracer, part, roles)) is not None:
            specs.append(spec)
        elif is_split(part, roles):  # one flat vector for each matrix of a stack
            tracer.keep(part.name, Kept.FLAT)
    return _layer(tracer, "conv", inputs, weight, specs, bias) if specs else None


def _whole(tracer: Tracer, tensor: Tensor) -> str | None:
    """The name of the parameter that ``tensor`` is, as it nearly always is one, unless that is kept."""
    name = tracer.own_name(tensor)
    return None if name is None or tracer.folded.get(name) == Kept.FLAT else name


def _is_row(tracer: Tracer, weight: Tensor, part: Part) -> bool:
    """Whether a part consists of rows that were looked up in a table."""
    looked_up = part.name in tracer.looked_up or bool(tracer.sources(weight))
    return looked_up and sum(any(axis >= 0 for axis in along) for along in part.axes) < 2


def _is_flat(tracer: Tracer, tensor: Tensor, part: Part) -> bool:
    """Whether a part is a flat vector, along which several dimensions of a weight run: it is kept."""
    shape = tracer.parameters[part.name].shape
    if len(shape) == 1 or shape.numel() == max(shape, default=0):
        axes = [axis for along, size in zip(part.axes, tensor.shape, strict=False) if size > 1 for axis in along]
        if len(set(axes)) < len(axes):
            tracer.keep(part.name, Kept.FLAT)
    return tracer.folded.get(part.name) == Kept.FLAT


def _layer(
    tracer: Tracer, kind: str, inputs: Sources, weight: Tensor, specs: Sequence[ParamSpec], bias: Tensor | None
) -> Sources:
    sources = union(inputs, tracer.sources(weight))
    if specs:
        sources = union(*(tracer.step(kind, sources, (spec,)) for spec in specs))
    sources = keep_others(tracer, weight, [spec.name for spec in specs], sources)
    return bias_step(tracer, sources, bias)


def bias_step(tracer: Tracer, inputs: Sources, bias: Tensor | None, flat: bool = False) -> Sources:
    """Records a layer's bias as a node of its own; ``flat`` if all dimensions of the bias are of the output."""
    if bias is None:
        return inputs
    if bias.dim() == 1 and (name := _whole(tracer, bias)) is not None:
        return tracer.step("bias", inputs, (ParamSpec(name, tuple(bias.shape), "bias"),))
    parts = [part for part in parts_of(tracer, bias) if not _is_flat(tracer, bias, part)]
    for part in parts:
        shape = tuple(tracer.parameters[part.name].shape)
        spec = ParamSpec(part.name, shape, "bias")
        last = set(part.axes[-1]) if part.axes else set()
        if (flat or {dim for dim, size in enumerate(shape) if size > 1} <= last) and shape[:1] != (math.prod(shape),):
            own = _own_dimensions(part, shape)
            spec = dataclasses.replace(spec, axes="".join("o" if dim in own else "s" for dim in range(len(shape))))
        elif shape[-1:] > (1,) and part.axes[-1:] == ((len(shape) - 1,),):  # one bias for each matrix of a stack
            spec = dataclasses.replace(spec, stacked=len(shape) - 1)
        inputs = tracer.step("bias", inputs, (spec,))
    return keep_others(tracer, bias, [part.name for part in parts], inputs)


def _own_dimensions(part: Part, shape: Sequence[int]) -> set[int]:
    """The dimensions of a parameter that a bias runs along; others index a stack of biases, of which it is one."""
    own = {axis for along in part.axes for axis in along if axis >= 0}
    return own | {dim for dim, size in enumerate(shape) if size == 1} if own else set(range(len(shape)))


def _stored(part: Part, layout: Layout, groups: int) -> tuple[Layout, int]:
    """Layout and groups of a part of a weight, which may be transposed, or shared by all groups."""
    if part.axes[:2] == ((1,), (0,)) and groups == 1:
        return ("in_out" if layout == "out_in" else "out_in"), groups
    return layout, groups if part.axes[:1] == ((0,),) else 1


def _modulated(tracer: Tracer, weight: Tensor) -> tuple[Part, ...]:
    """The largest parameter of a weight that is a product of activations and parameters."""
    names = [name for name in (tracer.value(weight) or CONSTANT).params if name not in tracer.scaling]
    if not names:
        return ()
    name = max(names, key=lambda name: tracer.parameters[name].numel())
    return (Part(name, tuple((dim,) for dim in range(tracer.parameters[name].dim()))),)


def keep_others(tracer: Tracer, tensor: Tensor, names: Sequence[str], sources: Sources) -> Sources:
    """Keeps the other parameters that a weight or bias is computed from.

    Magnitudes of channels, masks, factors of an elementwise product, and coefficients of a sum scale another weight.
    """
    if tracer.own_name(tensor) is not None:
        return sources
    parts = {part.name: part for part in known_parts(tracer, tensor)}
    tracer.take_back(parts, enters("indexing"))
    for other in dict.fromkeys((*(tracer.value(tensor) or CONSTANT).params, *parts)):
        if other in names:
            continue
        parameter = tracer.parameters[other]
        scales = max(parameter.shape, default=1) == parameter.numel() or not parameter.requires_grad
        scales = scales or other in tracer.scaling or (other in parts and not runs_along(parts[other], 2))
        reason = Kept.MAGNITUDE if scales else enters("the computation of another weight")
        sources = tracer.fold((other,), reason, sources)
    return sources


def entered(tracer: Tracer, tensor: Tensor) -> Sources:
    """The sources of a layer's input; a parameter among them is a token."""
    value = tracer.value(tensor) or CONSTANT
    return tracer.fold(value.params, Kept.TOKEN, value.sources) if value.params else value.sources


def layer_output(tracer: Tracer, shape: Sequence[int], dtype: torch.dtype, sources: Sources) -> Tensor:
    """The result of a layer; a parameter that is added to it is its bias, unless it has one already."""
    return opened(tracer, tracer.emit(shape, dtype, Value(sources)))


def offset(tracer: Tracer, value: Any, other: Any) -> Sources | None:
    """Records a parameter that is added to the result of a layer or norm without a bias: it is the bias."""
    found = open_in(tracer, value) if isinstance(other, Tensor) else None
    if found is None or not found.layers or not (parts := parts_of(tracer, other)):
        return None
    layers = [tracer.steps[step] for step in found.layers]
    name, channels = parts[0].name, found.channels
    shape = tuple(tracer.parameters[name].shape)
    own = [shape[dim] for dim in sorted(_own_dimensions(parts[0], shape))]
    size, stacks = math.prod(own), [spec.shape[: spec.stacked] for layer in layers for spec in layer.params]
    whole = channels < size == value.shape[-1] and any(math.prod(stack) * channels % size == 0 for stack in stacks)
    flat = size == other.numel() and (size == channels or whole) and not tracer.sources(other)
    if takes_bias(tracer, found):
        # One number for each channel is a bias if no channels of size 1 come before, else it may be a token.
        no_token = value.dim() < 3 or other.shape[-1:] == (1,)
        flat = flat and (own[:1] == [size] or max(own, default=1) < size or no_token)
        stacked = _stack(shape[:-1]) in [_stack(stack) for stack in stacks if stack] and shape[-1:] == (channels,)
        return bias_step(tracer, found.sources, other, flat) if flat or stacked else None
    if layers[0].kind not in ("ln", "bn") or found.sources != found.layers or not flat:
        return None
    if name not in tracer.claimed:
        tracer.claimed[name] = found.layers[0]
        layers[0].params += (vector_spec(name, shape, "bias"),)
    return found.sources


def _stack(shape: Sequence[int]) -> tuple[int, ...]:
    """The dimensions of a stack, of which those of size 1 do not count."""
    return tuple(size for size in shape if size > 1)


def vector_spec(name: str, shape: tuple[int, ...], role: Literal["gain", "bias"], added: Any = 0) -> ParamSpec:
    """How to decode the gain or bias of a norm; its channels may come after dimensions of size 1."""
    vector = shape[:1] != (size := math.prod(shape),) and max(shape, default=0) == size
    return ParamSpec(name, shape, role, added=added, axes="o" * len(shape) if vector else "")


def expect(condition: bool, message: str) -> None:
    """Raises an error as PyTorch would, where shapes are computed by hand."""
    if not condition:
        raise RuntimeError(message)
