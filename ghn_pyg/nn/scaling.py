"""Scales decoded tensors to the magnitude of a usual initialization."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def weight_scale(shape: Sequence[int]) -> float:
    r"""The factor :math:`\sqrt{\beta / \mathrm{fan\_in}}` of a weight of shape (out, in, height, width).

    :math:`\beta` is 1 for depthwise kernels (in = 1) and kernels whose height is below their width, else 2 (He
    initialization; linear layers too). From arXiv 2110.13100.

    Args:
        shape: The weight's shape with out first; two dimensions for a linear layer.
    """
    fan_in = math.prod(shape[1:])
    spatial = len(shape) == 4
    beta = 1 if spatial and (shape[1] == 1 or shape[2] < shape[3]) else 2
    return math.sqrt(beta / fan_in)


def scale_gain(gain: Tensor) -> Tensor:
    r"""Norm gains around 1: :math:`2 \sigma(w / 2)`."""
    return 2 * torch.sigmoid(0.5 * gain)


def scale_bias(bias: Tensor) -> Tensor:
    r"""Biases around 0: :math:`\tanh(b / 5)`."""
    return torch.tanh(0.2 * bias)
