"""Private names of torch and PyTorch Geometric that the package uses, each with a fallback where it is missing."""

from __future__ import annotations

from torch import Tensor

# --- tracing ---------------------------------------------------------------------------------------------------------

try:
    from torch._C import _functorch
except ImportError:  # tensors inside of function transforms then count as constants
    _functorch = None  # type: ignore[assignment]


def unwrap_functorch(tensor: Tensor) -> Tensor | None:
    """The tensor that a function transform such as ``torch.func.vmap`` wraps; ``None`` for any other tensor."""
    if _functorch is not None and _functorch.is_functorch_wrapped_tensor(tensor):
        return _functorch.get_unwrapped(tensor)
    return None
