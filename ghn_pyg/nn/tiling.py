"""Fills a large tensor by repeating a small one along its first two dimensions."""

from __future__ import annotations

from torch import Tensor


def tile_(out: Tensor, block: Tensor) -> Tensor:
    """Fills ``out`` in place by repeating ``block`` along the first two dimensions, and cutting.

    Whole repetitions are one broadcast copy; what is left over at the edges is copied by itself.

    Args:
        out: Tensor of shape (O, I, \\*rest), or (O,) for vectors.
        block: Tensor of shape (o, i, \\*rest), or (o,).

    Returns:
        ``out``.

    Example:
        >>> import torch
        >>> tile_(torch.empty(5), torch.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0, 1.0, 2.0, 1.0]
    """
    height = min(out.size(0), block.size(0))
    width = min(out.size(1), block.size(1)) if out.dim() > 1 else 1
    block = block[:height, :width] if out.dim() > 1 else block[:height]
    rows, columns = out.size(0) // height, out.size(1) // width if out.dim() > 1 else 1
    whole_rows, whole_columns = rows * height, columns * width
    _repeat(out[:whole_rows, :whole_columns] if out.dim() > 1 else out[:whole_rows], block, rows, columns)
    if out.dim() > 1 and whole_columns < out.size(1):
        left = out.size(1) - whole_columns
        _repeat(out[:whole_rows, whole_columns:], block[:, :left], rows, 1)
    if whole_rows < out.size(0):
        # The rows so far repeat with the block's height, their columns are complete.
        out[whole_rows:].copy_(out[: out.size(0) - whole_rows])
    return out


def _repeat(out: Tensor, block: Tensor, rows: int, columns: int) -> None:
    """Copies ``block`` into a grid of ``rows`` × ``columns`` places."""
    if out.dim() == 1:
        out.view(rows, -1).copy_(block.expand(rows, -1))
        return
    height, width, *rest = block.shape
    grid = out.unflatten(1, (columns, width)).unflatten(0, (rows, height))
    grid.copy_(block.view(1, height, 1, width, *rest).expand(rows, height, columns, width, *rest))
