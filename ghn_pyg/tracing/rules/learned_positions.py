"""Learned position embeddings that are added to tokens or maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...graph.arch_data import Layout, ParamSpec
from ..kept_reasons import Kept
from ..steps import channels
from ..tracer import Tracer
from ..values import CONSTANT


def with_tokens(tracer: Tracer, joined: Tensor, tensors: Sequence[Tensor], axis: int) -> Tensor:
    """Notes how many learned tokens a concatenation puts before others."""
    if tracer.sources(joined) and joined.dim() == 3 and axis == 1:
        first = list(itertools.takewhile(lambda tensor: not tracer.sources(tensor), tensors))
        if all(len((tracer.value(tensor) or CONSTANT).params) == 1 for tensor in first):
            tracer.origin(joined).tokens = sum(tensor.shape[1] for tensor in first)
    return joined


def position_tables(tracer: Tracer, operand: Any, tokens: Any) -> list[ParamSpec]:
    """The parameters behind ``operand`` that are learned position embeddings of ``tokens``.

    A table has a vector for each position, or for each row or column, or is resized to the map. If its channels come
    last, its first rows belong to the learned tokens that come before all others.
    """
    if not (isinstance(operand, Tensor) and isinstance(tokens, Tensor)) or tokens.dim() < 3:
        return []
    value = tracer.value(operand)
    if value is None or value.sources or not tracer.sources(tokens):
        return []
    inner, features = _without_ones(tokens.shape[1:]), channels(tracer.steps, tracer.sources(tokens))
    last = len(inner) < 3 or features == inner[-1] != inner[0]
    if len(inner) < 2 or not _fits(_without_ones(operand.shape), inner, last):
        return []
    extra = tracer.known(tokens).tokens
    # A parameter that has entered a layer is a token; one with a single number for each feature has no positions.
    names = [
        name
        for name in value.params
        if name not in tracer.claimed
        and tracer.folded.get(name) != Kept.TOKEN
        and tracer.parameters[name].numel() != features
    ]
    specs = (_table(tracer, name, inner, last, extra) for name in names)
    return [spec for spec in specs if spec is not None]


def _fits(operand: tuple[int, ...], inner: tuple[int, ...], last: bool) -> bool:
    """Whether a table has a vector for each position of ``inner``, or for each along some of its dimensions."""
    if not last:
        return operand[-len(inner) :] == inner
    pairs = list(zip(operand[::-1], inner[::-1], strict=False))
    return len(pairs) > 1 and pairs[0][0] == inner[-1] and all(size in (1, whole) for size, whole in pairs)


def _table(tracer: Tracer, name: str, inner: tuple[int, ...], last: bool, extra: int) -> ParamSpec | None:
    """The specification of a table for values of shape ``inner``, whose channels come last or first."""
    shape = tuple(tracer.parameters[name].shape)
    stored = _without_ones(shape)
    if len(stored) < 2 or math.prod(stored) == max(stored):
        return None
    channels_last, channels_first = (stored[at] == inner[-1 if last else 0] for at in (-1, 0))
    if len(stored) == 3 and len(shape) == 4 and channels_first and not (last and channels_last):
        return ParamSpec(name, shape, "position")
    if not channels_last and stored[-1] != inner[-1]:
        return None
    layout: Layout = "channels_last" if len(shape) > 3 else "out_in"
    return ParamSpec(name, shape, "position", layout, extra_rows=extra if extra < math.prod(shape[:-1]) else 0)


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without leading dimensions of size 1."""
    first = next((at for at, size in enumerate(shape) if size != 1), len(shape))
    return tuple(shape[first:])
