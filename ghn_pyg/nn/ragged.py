"""Batches of graphs of different size: values of all graphs one after another, without padding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def block_starts(sizes: Sequence[int]) -> list[int]:
    """Where each graph's square block begins in the flattened distances."""
    return [0, *itertools.accumulate(size * size for size in sizes)][:-1]


def distance_blocks(distance: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Each graph's distance matrix, as a view."""
    parts = distance.split([size * size for size in sizes])
    return [part.view(size, size) for part, size in zip(parts, sizes, strict=True)]


class _ToNumPy(torch.autograd.Function):
    @staticmethod
    def forward(tensor: Tensor) -> np.ndarray:
        return tensor.cpu().numpy()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Whole numbers have no gradients."""


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor of whole numbers as an array, inside :func:`torch.func.grad` too, which hides the memory of tensors."""
    array: np.ndarray = _ToNumPy.apply(tensor)
    return array
