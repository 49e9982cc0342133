"""Rules for embeddings: tables in which rows are looked up by token or position ids."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...graph.arch_data import ParamSpec
from ...utils.nested_tensors import map_tensors
from ..kept_reasons import Kept
from ..steps import Sources, union
from ..tracer import Tracer, rule
from ..values import Value
from ..weight_parts import parts_of, runs_along, specification
from .layer_steps import expect, keep_others


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
    """Records a table of which rows are looked up; none of its rows belongs to a class token.

    It may be made of several tables, or be a product of one and a matrix, which is a layer.
    """
    sources, specs = tracer.sources(ids), []
    for part in parts_of(tracer, table):
        shape = tuple(tracer.parameters[part.name].shape)
        has_rows = not part.axes or any(axis >= 0 for axis in part.axes[0]) or not runs_along(part)
        if len(shape) < 2:
            if has_rows:
                tracer.keep(part.name, Kept.FLAT)
            else:
                tracer.fold((part.name,), Kept.TOKEN)
        elif has_rows:
            specs.append(("pos_enc", ParamSpec(part.name, shape, "position")))
        elif (spec := specification(tracer, part, "io")) is not None:
            specs.append(("conv", spec))
    steps = union(*(tracer.step(kind, sources, (spec,)) for kind, spec in specs)) if specs else sources
    return keep_others(tracer, table, [spec.name for _, spec in specs], steps)
