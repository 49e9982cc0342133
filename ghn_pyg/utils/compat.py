"""Private names of torch and PyTorch Geometric that the package uses, each with a fallback where it is missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch

# --- layers and transforms -------------------------------------------------------------------------------------------

try:
    from torch._subclasses.fake_tensor import FakeTensor as _FakeTensor  # a tensor without values, for compilers
except ImportError:
    _FakeTensor = None  # type: ignore[assignment,misc]
_transforms_active = getattr(torch._C, "_are_functorch_transforms_active", None)  # inside vmap, grad, jvp, …
_is_legacy_batched = getattr(
    getattr(torch._C, "_functorch", None), "is_legacy_batchedtensor", None
)  # of is_grads_batched=True


def has_plain_values(*tensors: Tensor) -> bool:
    """Whether values may be read: not inside a function transform or a compiler, nor of fake tensors.

    Without the private names it is ``False``, which leads to slower, always correct code.
    """
    if torch.compiler.is_compiling() or _transforms_active is None or _is_legacy_batched is None:
        return False
    if _transforms_active():
        return False
    return not any(_is_legacy_batched(x) or (_FakeTensor is not None and isinstance(x, _FakeTensor)) for x in tensors)


def set_batch_slices(batch: Batch, name: str, ends: Sequence[int]) -> None:
    """Tells a PyG batch where each graph's part of an attribute starts, so that ``to_data_list`` gives it back.

    Without the private dictionaries the attribute stays with the batch only.
    """
    if hasattr(batch, "_slice_dict") and hasattr(batch, "_inc_dict"):
        # New dictionaries: copies of a batch share them.
        batch._slice_dict = {**batch._slice_dict, name: torch.tensor(ends)}
        batch._inc_dict = {**batch._inc_dict, name: torch.zeros(len(ends) - 1, dtype=torch.long)}
