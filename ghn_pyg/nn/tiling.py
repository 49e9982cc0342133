"""Fills a large tensor with repetitions of a smaller one."""

from __future__ import annotations

from torch import Tensor


def tile_(out: Tensor, block: Tensor) -> Tensor:
    """Fills ``out`` in place by repeating ``block`` along the first two dimensions, cut at the edges.

    Whole repetitions are one broadcast copy; the remainders at the edges are copied separately.

    Args:
        out: Tensor of shape (O, I, *rest), or (O,) for vectors.
        block: Tensor of shape (o, i, *rest), or (o,).

    Returns:
        ``out``.

    Example:
        >>> import torch
        >>> tile_(torch.empty(5), torch.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0, 1.0, 2.0, 1.0]
    """
    if out.dim() == 1:
        return _tile_vector_(out, block)
    height, width = min(out.size(0), block.size(0)), min(out.size(1), block.size(1))
    if block.shape[:2] != (height, width):
        block = block[:height, :width]
    whole, rest = out.size(0) - out.size(0) % height, out.size(1) % width
    _tile_grid_(out if whole == out.size(0) and not rest else out[:whole, : out.size(1) - rest], block)
    if rest:
        _tile_grid_(out[:whole, -rest:], block[:, :rest])
    if whole < out.size(0):
        out[whole:].copy_(out[: out.size(0) - whole])
    return out


def _tile_vector_(out: Tensor, block: Tensor) -> Tensor:
    size, length = out.size(0), block.size(0)
    if size <= length:
        return out.copy_(block[:size])
    whole = size - size % length
    out[:whole].view(-1, length).copy_(block)
    if whole < size:
        out[whole:].copy_(block[: size - whole])
    return out


def _tile_grid_(out: Tensor, block: Tensor) -> None:
    """Fills ``out`` with whole repetitions."""
    height, width = block.shape[:2]
    if out.shape[:2] == (height, width):
        out.copy_(block)
    else:
        # Every number is read many times: twice as fast from contiguous memory.
        out.unflatten(1, (-1, width)).unflatten(0, (-1, height)).copy_(block.contiguous().unsqueeze(1))
