"""Rules for the functions that use parameters: convolutions, linear layers, embeddings and attention."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ...graph.arch_data import Layout, ParamSpec
from ..kept import Kept, enters
from ..steps import Sources, union
from ..tracer import Tracer, rule
from ..values import CONSTANT, Value
from ..weight_parts import Part, parts_of, specification, stacked_in

_TAKES_BIAS: Final = ("conv", "sep_conv", "dil_conv", "ln", "bn")


def weight_step(
    tracer: Tracer,
    kind: str,
    inputs: Sources,
    weight: Tensor,
    bias: Tensor | None,
    layout: Layout = "out_in",
    groups: int = 1,
) -> Sources:
    """Records a layer: its weight and, when it has one, its bias; a weight that is no parameter is folded away."""
    specs = []
    for part in parts_of(tracer, weight) or _modulated(tracer, weight):
        shape = tuple(tracer.parameters[part.name].shape)
        stacked = max(stacked_in(part, shape), len(shape) - weight.dim())
        specs.append(ParamSpec(part.name, shape, "weight", *_stored(part, layout, groups), stacked))
    return _layer(tracer, kind, inputs, weight, specs, bias)


def matrix_step(tracer: Tracer, inputs: Sources, weight: Tensor, roles: str, bias: Tensor | None) -> Sources | None:
    """Records a linear layer, whose weight's dimensions have these roles; ``None`` if no parameter of it is a matrix.

    ``roles`` has for each dimension ``o`` (of the output), ``i`` (of the input) or ``s`` (of a stack).
    """
    found = [
        specification(tracer, part, roles) for part in parts_of(tracer, weight) if not _is_row(tracer, weight, part)
    ]
    specs = [spec for spec in found if spec is not None]
    return _layer(tracer, "conv", inputs, weight, specs, bias) if specs else None


def _is_row(tracer: Tracer, weight: Tensor, part: Part) -> bool:
    """Whether a part consists of rows of a table that are taken by their numbers."""
    taken = part.name in tracer.looked_up or bool(tracer.sources(weight))
    return taken and sum(map(bool, part.axes)) < 2


def _layer(
    tracer: Tracer, kind: str, inputs: Sources, weight: Tensor, specs: Sequence[ParamSpec], bias: Tensor | None
) -> Sources:
    sources = union(inputs, tracer.sources(weight))
    if specs:
        sources = union(*(tracer.step(kind, sources, (spec,)) for spec in specs))
        sources = _scaled_by_others(tracer, weight, [spec.name for spec in specs], sources)
    return bias_step(tracer, sources, bias)


def bias_step(tracer: Tracer, inputs: Sources, bias: Tensor | None, joined: bool = False) -> Sources:
    """Records a layer's bias as a node of its own; ``joined`` tells that all its dimensions are of the output."""
    for part in () if bias is None else parts_of(tracer, bias):
        shape = tuple(tracer.parameters[part.name].shape)
        spec = ParamSpec(part.name, shape, "bias")
        along = set(part.axes[-1]) if part.axes else set()
        flat = joined or {dim for dim, size in enumerate(shape) if size > 1} <= along
        if flat and shape[:1] != (math.prod(shape),):
            spec = dataclasses.replace(spec, axes="o" * len(shape))
        elif shape[-1:] > (1,) and part.axes[-1:] == ((len(shape) - 1,),):  # each matrix of a stack has one of its own
            spec = dataclasses.replace(spec, stacked=len(shape) - 1)
        inputs = tracer.step("bias", inputs, (spec,))
    return _scaled_by_others(tracer, bias, parts(tracer, bias), inputs)


def _stored(part: Part, layout: Layout, groups: int) -> tuple[Layout, int]:
    """How a part of a weight is stored, which may be given turned, or once for all groups."""
    if part.axes[:2] == ((1,), (0,)) and groups == 1:
        return ("in_out" if layout == "out_in" else "out_in"), groups
    return layout, groups if part.axes[:1] == ((0,),) else 1


def parts(tracer: Tracer, tensor: Tensor | None) -> tuple[str, ...]:
    """The names of the parameters that a weight or bias is made of."""
    return () if tensor is None else tuple(part.name for part in parts_of(tracer, tensor))


def _modulated(tracer: Tracer, weight: Tensor) -> tuple[Part, ...]:
    """The parameter that activations multiply before it is the weight of a layer."""
    value = tracer.value(weight)
    if value is None or not value.params:
        return ()
    name = max(value.params, key=lambda name: tracer.parameters[name].numel())
    return (Part(name, tuple((dim,) for dim in range(tracer.parameters[name].dim()))),)


def entered(tracer: Tracer, tensor: Tensor) -> Sources:
    """The sources of what a layer or norm is given; a parameter that enters as an activation is a token."""
    value = tracer.value(tensor) or CONSTANT
    return tracer.fold(value.params, Kept.TOKEN, value.sources)


def _scaled_by_others(tracer: Tracer, tensor: Tensor | None, names: Sequence[str], sources: Sources) -> Sources:
    """Keeps what else enters the computation of a weight or bias: a magnitude has one number for each channel."""
    value = tracer.value(tensor) if tensor is not None else None
    for other in value.params if value else ():
        if other not in names:
            shape = tracer.parameters[other].shape
            scales = max(shape, default=1) == math.prod(shape)
            reason = Kept.MAGNITUDE if scales else enters("the computation of another weight")
            sources = tracer.fold((other,), reason, sources)
    return sources


def offset(tracer: Tracer, value: Any, other: Any) -> Sources | None:
    """Records a parameter that is added to what a layer or norm without a bias gives: its bias."""
    step = tracer.origin(value).open_step if isinstance(value, Tensor) and isinstance(other, Tensor) else None
    if step is None or tracer.sources(value) != (step,):
        return None
    found = parts_of(tracer, other)
    if not found or tracer.steps[step].kind not in _TAKES_BIAS:
        return None
    name = found[0].name
    shape, channels = tuple(tracer.parameters[name].shape), tracer.steps[step].shape[0]
    joined = math.prod(shape) == channels == other.numel() and not tracer.sources(other)
    if tracer.steps[step].kind not in ("ln", "bn"):
        # One number for each channel is a bias where it stands first, and elsewhere a token.
        joined = joined and (shape[0] == channels or max(shape) < channels)
        stacked = shape[:-1] in _stacks(tracer, step) and shape[-1:] == (channels,)
        return bias_step(tracer, (step,), other, joined) if joined or stacked else None
    if shape[:1] != (channels,) or not joined:
        return None
    if name not in tracer.claimed:
        tracer.claimed[name] = step
        tracer.steps[step].params += (ParamSpec(name, shape, "bias"),)
    return (step,)


def _stacks(tracer: Tracer, step: int) -> set[tuple[int, ...]]:
    """The shapes of the stacks of matrices that a layer has."""
    return {spec.shape[: spec.stacked] for spec in tracer.steps[step].params if spec.stacked}


def expect(condition: bool, message: str) -> None:
    """Raises what PyTorch would, with a message that says more."""
    if not condition:
        raise RuntimeError(message)


def _each(value: int | Sequence[int], count: int) -> Sequence[int]:
    return (value,) * count if isinstance(value, int) else tuple(value) * (count // len(value))


def _conv_size(size: int, kernel: int, stride: int, padding: Any, dilation: int) -> int:
    span = dilation * (kernel - 1) + 1
    return -(-size // stride) if padding == "same" else (size + 2 * padding - span) // stride + 1


def _kind(groups: int, dilations: Sequence[int]) -> str:
    return "conv" if groups == 1 else "dil_conv" if min(dilations) > 1 else "sep_conv"


def _convolution(spatial: int) -> Any:
    def conv(
        tracer: Tracer,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        shape, filters = tuple(input.shape), tuple(weight.shape)
        expect(len(shape) in (spatial + 1, spatial + 2), f"conv{spatial}d got an input of shape {shape}")
        lead, channels, sizes = shape[: -spatial - 1], shape[-spatial - 1], shape[-spatial:]
        expected = filters[1] * groups
        expect(
            channels == expected, f"conv{spatial}d expected {expected} input channels, got {channels} (input {shape})"
        )
        dilations = _each(dilation, spatial)
        paddings = (padding,) * spatial if padding == "same" else _each(0 if padding == "valid" else padding, spatial)
        out = [
            _conv_size(*terms)
            for terms in zip(sizes, filters[2:], _each(stride, spatial), paddings, dilations, strict=True)
        ]
        expect(min(out) > 0, f"conv{spatial}d with kernel {filters[2:]} got an input too small: {shape}")
        kind = _kind(groups, dilations)
        sources = weight_step(tracer, kind, entered(tracer, input), weight, bias)
        result = tracer.emit((*lead, filters[0], *out), input.dtype, Value(sources))
        return tracer.opened(result) if bias is None else result

    return conv


def _transposed_convolution(spatial: int) -> Any:
    def conv_transpose(
        tracer: Tracer,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor:
        shape, filters = tuple(input.shape), tuple(weight.shape)
        channels = shape[-spatial - 1]
        expect(channels == filters[0], f"conv_transpose{spatial}d expected {filters[0]} input channels, got {channels}")
        options = (_each(option, spatial) for option in (stride, padding, output_padding, dilation))
        out = [
            (size - 1) * step - 2 * pad + dil * (kernel - 1) + extra + 1
            for size, kernel, step, pad, extra, dil in zip(shape[-spatial:], filters[2:], *options, strict=True)
        ]
        kind = _kind(groups, _each(dilation, spatial))
        sources = weight_step(tracer, kind, entered(tracer, input), weight, bias, "in_out", groups)
        result = tracer.emit((*shape[: -spatial - 1], filters[1] * groups, *out), input.dtype, Value(sources))
        return tracer.opened(result) if bias is None else result

    return conv_transpose


rule(torch.conv1d)(_convolution(1))
rule(torch.conv2d)(_convolution(2))
rule(torch.conv3d)(_convolution(3))
rule(torch.conv_transpose1d)(_transposed_convolution(1))
rule(torch.conv_transpose2d)(_transposed_convolution(2))
rule(torch.conv_transpose3d)(_transposed_convolution(3))


@rule(F.linear)
def linear(tracer: Tracer, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x Wᵀ + b``."""
    shape = tuple(input.shape)
    expect(
        bool(shape) and shape[-1] == weight.shape[-1],
        f"linear expected {weight.shape[-1]} input features, got an input of shape {shape}",
    )
    entering = entered(tracer, input)
    sources = matrix_step(tracer, entering, weight, "oi"[-weight.dim() :], bias)
    if sources is None:
        sources = weight_step(tracer, "conv", entering, weight, bias)
    result = tracer.emit((*shape[:-1], *weight.shape[:-1]), input.dtype, Value(sources))
    return tracer.opened(result) if bias is None else result


@rule(F.embedding)
def embedding(tracer: Tracer, input: Tensor, weight: Tensor, *_: Any, **__: Any) -> Tensor:
    """A table that token or position ids are looked up in."""
    expect(not input.is_floating_point(), f"embedding expected integer ids, got {input.dtype}")
    return tracer.emit((*input.shape, weight.shape[-1]), weight.dtype, Value(looked_up(tracer, input, weight)))


@rule(F.embedding_bag)
def embedding_bag(
    tracer: Tracer, input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: Any = None,
    norm_type: Any = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Any = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """A table of which the rows of each bag of ids are joined."""
    expect(not input.is_floating_point(), f"embedding_bag expected integer ids, got {input.dtype}")
    expect((input.dim() == 2) == (offsets is None), "embedding_bag expected either a matrix of ids or offsets")
    bags = input.shape[0] if offsets is None else offsets.shape[0] - include_last_offset
    return tracer.emit((bags, weight.shape[-1]), weight.dtype, Value(looked_up(tracer, input, weight)))


def looked_up(tracer: Tracer, ids: Tensor, table: Tensor) -> Sources:
    """Records a table of which rows are looked up."""
    name, sources = tracer.parameter(table), tracer.sources(ids)
    if name is None:
        return sources
    # No row of such a table is a class token's.
    return tracer.step("pos_enc", sources, (ParamSpec(name, tuple(tracer.parameters[name].shape), "position"),))


def position_bias(tracer: Tracer, bias: Tensor, scores: Sources = ()) -> None:
    """Keeps the parameters that are added to ``scores`` of attention, and the tables that they come from."""
    value = tracer.value(bias) or CONSTANT
    tracer.fold(value.params, Kept.POSITION_BIAS)
    queries = union(*(tracer.steps[step].inputs for step in scores))
    for step in _tables(tracer, value.sources, queries):
        tracer.unclaim(step, Kept.POSITION_BIAS)


def _tables(tracer: Tracer, sources: Sources, queries: Sources) -> list[int]:
    """Where rows are looked up by relative position, or the queries themselves are multiplied by all of them."""
    found, waiting, seen = [], list(sources), set(sources)
    while waiting:
        step = tracer.steps[place := waiting.pop()]
        if step.kind == "pos_enc" or (step.kind == "conv" and step.inputs and set(step.inputs) <= set(queries)):
            found.append(place)
        elif step.kind in ("sum", "mul", "concat"):
            waiting += set(step.inputs) - seen
            seen.update(step.inputs)
    return found


@rule(F.scaled_dot_product_attention)
def scaled_dot_product_attention(
    tracer: Tracer, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    """Fused attention is the same node as an unfused softmax."""
    given = [tensor for tensor in (query, key, value, attn_mask) if tensor is not None]
    expect(
        query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2],
        "attention got query, key and value of shapes "
        f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}",
    )
    if attn_mask is not None:
        position_bias(tracer, attn_mask)
    merged = tracer.merged(given)
    tracer.fold(merged.params, Kept.TOKEN)
    lead = query.shape[:-2] if len(query.shape) == len(key.shape) and query.shape[0] == key.shape[0] else None
    if lead is None:
        lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    out = (*lead, query.shape[-2], value.shape[-1])
    return tracer.emit(out, query.dtype, Value(tracer.step("msa", merged.sources)))


@rule(F.multi_head_attention_forward)
def multi_head_attention(
    tracer: Tracer, query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None,
    training: bool = True, key_padding_mask: Any = None, need_weights: bool = True, attn_mask: Any = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Any = None, k_proj_weight: Any = None,
    v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None, average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """:class:`torch.nn.MultiheadAttention`: in-projection → bias → attention → out-projection → bias."""
    expect(
        query.shape[-1] == embed_dim,
        f"multi-head attention expected {embed_dim} features, got a query of shape {tuple(query.shape)}",
    )
    entering = [entered(tracer, tensor) for tensor in (query, key, value)]
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        projected = union(*(weight_step(tracer, "conv", x, w, None) for x, w in zip(entering, weights, strict=True)))
        projected = bias_step(tracer, projected, in_proj_bias)
    else:
        assert in_proj_weight is not None
        projected = weight_step(tracer, "conv", union(*entering), in_proj_weight, in_proj_bias)
    attended = tracer.step("msa", projected)
    tracer.fold((name for extra in (bias_k, bias_v) if (name := tracer.parameter(extra))), Kept.TOKEN)
    if isinstance(attn_mask, Tensor):
        position_bias(tracer, attn_mask)
    out = tracer.like(query, weight_step(tracer, "conv", attended, out_proj_weight, out_proj_bias))
    if not need_weights:
        return out, None
    batched = query.dim() == 3
    heads = () if average_attn_weights else (num_heads,)
    lead = (query.shape[1],) if batched else ()
    shape = (*lead, *heads, query.shape[0], key.shape[0] + (bias_k is not None) + add_zero_attn)
    return out, tracer.emit(shape, query.dtype, Value(attended))
