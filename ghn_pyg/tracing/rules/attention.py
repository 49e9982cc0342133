"""Rules for attention: fused, multi-head, or written out as a softmax between two products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kept_reasons import Kept
from ..steps import LAYERS, Sources, union
from ..tracer import Tracer, rule
from ..values import CONSTANT, Value
from ..weight_parts import parts_of
from .elementwise import scores
from .layer_steps import bias_step, entered, expect, weight_step


@rule(F.softmax, torch.softmax, Tensor.softmax)
def softmax(tracer: Tracer, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A softmax: attention if its result is multiplied by values."""
    value = tracer.value(input) or CONSTANT
    for step in (table for score in scores(tracer, input) for table in tracer.tables.pop(score, ())):
        tracer.unclaim(step, Kept.POSITION_BIAS)
    sources = tracer.step("softmax", value.sources) if value.sources else ()
    dtype = next((arg for arg in (*args, *kwargs.values()) if isinstance(arg, torch.dtype)), input.dtype)
    return tracer.emit(input.shape, dtype, Value(sources, value.params))


def attended(tracer: Tracer, operands: Sequence[Tensor]) -> Sources:
    """The sources of a product: scores times values are self-attention, whose inputs are those of both.

    If layers mix the heads of the scores first (talking heads), the softmax itself becomes the attention.
    """
    entering = tracer.entering(operands)
    scores = [s for s in entering if len(s) == 1 and tracer.steps[s[0]].kind == "softmax"]
    if scores:
        return tracer.step("msa", union(*(tracer.steps[s[0]].inputs if s in scores else s for s in entering)))
    if len(set(entering)) > 1:
        for sources in entering:
            if (mixed := _softmax_before_layers(tracer, sources)) is not None:
                tracer.steps[mixed].kind = "msa"
    return tracer.step("product", union(*entering)) if all(entering) else union(*entering)


def _softmax_before_layers(tracer: Tracer, sources: Sources) -> int | None:
    """The softmax that a chain of layers starts from."""
    while len(sources) == 1 and tracer.steps[sources[0]].kind in LAYERS:
        sources = tracer.steps[sources[0]].inputs
    return sources[0] if len(sources) == 1 and tracer.steps[sources[0]].kind == "softmax" else None


def position_bias(tracer: Tracer, bias: Tensor, scores: Sources = ()) -> None:
    """Keeps the parameters that are added to the scores of attention, and the tables that they are looked up in.

    A layer is a table only if a softmax shows that these are scores, and no other product.
    """
    value = tracer.value(bias) or CONSTANT
    tracer.fold(value.params, Kept.POSITION_BIAS)
    queries = union(*(tracer.steps[step].inputs for step in scores))
    for step in _tables(tracer, value.sources, queries):
        if tracer.steps[step].kind == "pos_enc":
            tracer.unclaim(step, Kept.POSITION_BIAS)
        for score in scores:
            tracer.tables.setdefault(score, []).append(step)


def _tables(tracer: Tracer, sources: Sources, queries: Sources) -> list[int]:
    """Tables of relative positions: their rows are looked up, or the queries are multiplied by all of them."""
    tables, waiting, seen = [], list(sources), set(sources)
    while waiting:
        step = tracer.steps[number := waiting.pop()]
        if step.kind == "pos_enc" or (step.kind == "conv" and step.inputs and set(step.inputs) <= set(queries)):
            tables.append(number)
        elif step.kind in ("sum", "mul", "concat"):
            waiting += set(step.inputs) - seen
            seen.update(step.inputs)
    return tables


@rule(F.scaled_dot_product_attention)
def scaled_dot_product_attention(
    tracer: Tracer, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    """Fused attention is the same node as an unfused softmax."""
    expect(
        query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2],
        "attention got query, key and value of shapes "
        f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}",
    )
    if attn_mask is not None:
        position_bias(tracer, attn_mask)
    merged = tracer.merged(tensor for tensor in (query, key, value, attn_mask) if tensor is not None)
    tracer.fold(merged.params, Kept.TOKEN)
    batch, of_keys = query.shape[:-2], key.shape[:-2]
    if batch[:1] != of_keys[:1]:  # heads of queries may outnumber those of keys
        batch = torch.broadcast_shapes(batch, of_keys)
    shape = (*batch, query.shape[-2], value.shape[-1])
    return tracer.emit(shape, query.dtype, Value(tracer.step("msa", merged.sources)))


@rule("flex_attention")
def flex_attention(
    tracer: Tracer, query: Tensor, key: Tensor, value: Tensor, score_mod: Any, *args: Any, **_: Any
) -> tuple[Tensor, ...]:
    """FlexAttention; what its function adds to the scores keeps its value."""
    scores = tracer.emit((), query.dtype, Value(tracer.step("product", union(*map(tracer.sources, (query, key))))))
    with tracer:
        score_mod(scores, *(torch.zeros((), dtype=torch.int32, device="cpu") for _ in range(4)))
    out = scaled_dot_product_attention(tracer, query, key, value)
    rows = tracer.emit(query.shape[:-1], torch.float32, CONSTANT)
    return out, rows, rows


@rule(F.multi_head_attention_forward)
def multi_head_attention(
    tracer: Tracer, query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int,
    in_proj_weight: Tensor, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None,
    *, need_weights: bool = True, attn_mask: Any = None, use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None, k_proj_weight: Any = None, v_proj_weight: Any = None,
    average_attn_weights: bool = True, **_: Any,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """:class:`torch.nn.MultiheadAttention`: in-projection → bias → attention → out-projection → bias."""
    expect(
        query.shape[-1] == embed_dim,
        f"multi-head attention expected {embed_dim} features, got a query of shape {tuple(query.shape)}",
    )
    entering = [entered(tracer, tensor) for tensor in (query, key, value)]
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        steps = [weight_step(tracer, "conv", x, w, None) for x, w in zip(entering, weights, strict=True)]
        parts = () if in_proj_bias is None else parts_of(tracer, in_proj_bias)
        biases = [tracer.parameters[part.name] for part in parts]
        if len(biases) == 3:  # one for each weight
            projected = union(*(bias_step(tracer, step, bias) for step, bias in zip(steps, biases, strict=True)))
        else:
            projected = bias_step(tracer, union(*steps), in_proj_bias)
    else:
        projected = weight_step(tracer, "conv", union(*entering), in_proj_weight, in_proj_bias)
    attention = tracer.step("msa", projected)
    tracer.fold((name for extra in (bias_k, bias_v) if (name := tracer.parameter(extra))), Kept.TOKEN)
    if isinstance(attn_mask, Tensor):
        position_bias(tracer, attn_mask)
    sources = weight_step(tracer, "conv", attention, out_proj_weight, out_proj_bias)
    out = tracer.emit((*query.shape[:-1], out_proj_weight.shape[0]), query.dtype, Value(sources))
    if not need_weights:
        return out, None
    batch = (query.shape[1],) if query.dim() == 3 else ()
    heads = () if average_attn_weights else (num_heads,)
    keys = key.shape[0] + (bias_k is not None) + add_zero_attn
    return out, tracer.emit((*batch, *heads, query.shape[0], keys), query.dtype, Value(attention))
