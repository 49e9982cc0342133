"""Rules for embeddings: tables in which rows are looked up by token or position ids."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...graph.arch_data import ParamSpec
from ...utils.nested_tensors import map_tensors
from ..kept_reasons import Kept
from ..steps import Sources
from ..tracer import Tracer, rule
from ..values import Value
from .layer_steps import expect


@rule(F.embedding)
def embedding(tracer: Tracer, input: Tensor, weight: Tensor, *_: Any, **__: Any) -> Tensor:
    """A row for each id."""
    expect(not input.is_floating_point(), f"embedding expected integer ids, got {input.dtype}")
    return tracer.emit((*input.shape, weight.shape[-1]), weight.dtype, Value(looked_up(tracer, input, weight)))


@rule(F.embedding_bag)
def embedding_bag(tracer: Tracer, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The sum or mean of the rows of each bag of ids."""
    given = map_tensors(tracer.lift, (input, weight, *args))
    shape = F.embedding_bag(*given, **map_tensors(tracer.lift, kwargs)).shape
    return tracer.emit(shape, weight.dtype, Value(looked_up(tracer, input, weight)))


def looked_up(tracer: Tracer, ids: Tensor, table: Tensor) -> Sources:
    """Records a table of which rows are looked up; none of its rows belongs to a class token."""
    name, sources = tracer.parameter(table), tracer.sources(ids)
    if name is None:
        return sources
    if len(shape := tuple(tracer.parameters[name].shape)) < 2:
        tracer.keep(name, Kept.FLAT)
        return sources
    return tracer.step("pos_enc", sources, (ParamSpec(name, shape, "position"),))
