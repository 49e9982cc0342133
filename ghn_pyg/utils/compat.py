"""Private names of torch and PyTorch Geometric that the package uses, each with a fallback where it is missing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
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


try:  # an operator of an extension such as torchvision.ops
    from torch._ops import OpOverloadPacket as OpOverloadPacket
except ImportError:  # extension operators then run for the shape of their result only

    class OpOverloadPacket:  # type: ignore[no-redef]
        """Stands for a type that no function has."""


def device_constructors() -> Iterable[Callable[..., Any]]:
    """The functions of torch that create a tensor on a ``device``."""
    try:
        from torch.utils._device import _device_constructors
    except ImportError:
        names = (
            "empty empty_strided ones arange eye full linspace logspace rand randn randint randperm range zeros tensor "
            "as_tensor tril_indices triu_indices hann_window hamming_window bartlett_window blackman_window"
        )
        return [getattr(torch, name) for name in names.split() if hasattr(torch, name)]
    constructors: Iterable[Callable[..., Any]] = _device_constructors()
    return constructors


def run_uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Runs parts of a network that compile themselves as plain Python.

    torch._dynamo, which takes seconds to import, is loaded already if anything compiles itself.
    """
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
