"""Fills a parameter from its decoded block: tiles the block to the parameter's size, in the parameter's layout."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from ..graph.arch_data import ParamSpec
from ..nn.tiling import tile_
from .class_tokens import draw_class_tokens


def fill_(out: Tensor, spec: ParamSpec, block: Tensor, seed: int | None = None) -> Tensor:
    """Fills a parameter in place.

    Args:
        out: The parameter's memory, of ``spec.shape``.
        spec: Which parameter it is.
        block: (C,) for vectors, (o, i, h, w) for weights, (1, i, h, w) for positions.
        seed: Seed of the rows of class tokens; see :func:`draw_class_tokens`.

    Returns:
        ``out``.
    """
    if spec.role == "position":
        return _fill_positions_(out, spec, block, seed)
    if spec.axes:
        return _fill_joined_(out, spec, block)
    if spec.stacked:
        stack = out.flatten(0, spec.stacked - 1)
        fill_(stack[0], dataclasses.replace(spec, shape=spec.shape[spec.stacked :], stacked=0), block)
        stack[1:].copy_(stack[0].expand_as(stack[1:]))
        return out
    if spec.role == "weight":
        return _fill_weight_(out, spec, block)
    if out.dim() == 1:
        return tile_(out, block)
    # A norm over whole maps: every position of a channel gets the same number.
    channels = tile_(block.new_empty(out.size(0)), block) if out.dim() else block[0]
    return out.copy_(channels.view(-1, *[1] * (out.dim() - 1)) if out.dim() else channels)


def _fill_weight_(out: Tensor, spec: ParamSpec, block: Tensor) -> Tensor:
    view = out.transpose(0, 1) if spec.layout == "in_out" else out
    if view.dim() == 5:  # the planes of a volume are alike
        block = block.unsqueeze(2).expand(-1, -1, view.size(2), -1, -1)
    tile_(view, block.reshape(*block.shape[: view.dim()]) if view.dim() < 4 else block)
    return out


def _fill_joined_(out: Tensor, spec: ParamSpec, block: Tensor) -> Tensor:
    """Fills a weight or vector whose dimensions are joined first; all matrices of a stack are alike."""
    if spec.role != "weight":
        return out.copy_(tile_(block.new_empty(out.numel()), block).view(out.shape))
    order = sorted(range(out.dim()), key=lambda dim: "soi".index(spec.axes[dim]))
    matrix = tile_(block.new_empty(spec.along("o"), spec.along("i")), block.reshape(block.shape[:2]))
    view = out.permute(order)
    view.copy_(matrix.view(view.shape[spec.axes.count("s") :]))
    return out


def _fill_positions_(out: Tensor, spec: ParamSpec, block: Tensor, seed: int | None) -> Tensor:
    if spec.is_map:
        return tile_(out, block)
    table = out.view(-1, out.size(-1))
    table[: spec.extra_rows].copy_(draw_class_tokens(spec.name, spec.extra_rows, table.size(1), seed))
    tile_(table[spec.extra_rows :].t(), block[0].flatten(1))
    return out
