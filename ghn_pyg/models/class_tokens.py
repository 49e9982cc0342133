"""Draws the rows of class and register tokens in position embeddings, which a GHN does not predict."""

from __future__ import annotations

import zlib
from typing import Final

import torch
from torch import Tensor

_STD: Final = 0.02


def draw_class_tokens(name: str, rows: int, channels: int, seed: int | None = None) -> Tensor:
    """Draws rows from a normal distribution of standard deviation 0.02, as ViT initialises its positions.

    They are drawn in float32 on the CPU, so that a seed gives the same rows on every device and for every default
    dtype.

    Args:
        name: Name of the parameter; each has its own rows for a seed.
        rows: Number of rows.
        channels: Width of a row.
        seed: Seed of the rows; by default they come from PyTorch's global generator.

    Example:
        >>> draw_class_tokens("encoder.pos_embedding", 1, 3, seed=0)
        tensor([[ 0.0088, -0.0171, -0.0288]])
    """
    generator = None
    if seed is not None:
        generator = torch.Generator("cpu").manual_seed((seed + zlib.crc32(name.encode())) % 2**63)
    return torch.randn(rows, channels, generator=generator, dtype=torch.float32, device="cpu") * _STD
