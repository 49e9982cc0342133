"""Private names of torch and PyTorch Geometric that the package uses, each with a fallback where it is missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# --- training: operations on lists of tensors, by a few kernels instead of one for each tensor -----------------------


def foreach_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm of each tensor (``torch._foreach_norm``)."""
    fused = getattr(torch, "_foreach_norm", None)
    return torch.stack(list(fused(tensors)) if fused else [torch.linalg.vector_norm(tensor) for tensor in tensors])


def foreach_mul(tensors: Sequence[Tensor], factors: Sequence[float]) -> tuple[Tensor, ...]:
    """Each tensor times its factor (``torch._foreach_mul``)."""
    fused = getattr(torch, "_foreach_mul", None)
    if fused:
        return tuple(fused(tensors, factors))
    return tuple(tensor * factor for tensor, factor in zip(tensors, factors, strict=True))
