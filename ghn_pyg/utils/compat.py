"""Private names of torch and PyTorch Geometric that the package uses, each with a fallback where it is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
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


# --- tracing: functions with a rule; one that torch does not have needs none ----------------------------------------


def _functions(owner: Any, names: str) -> tuple[Callable[..., Any], ...]:
    return tuple(getattr(owner, name) for name in names.split() if hasattr(owner, name))


_VF: Final = getattr(torch, "_VF", None)
IS_ALL_TRUE: Final = (*_functions(torch, "_is_all_true"), *_functions(Tensor, "_is_all_true"))
"""Checks of ``torch.distributions`` that all elements of a mask are true."""
IS_ANY_TRUE: Final = (*_functions(torch, "_is_any_true"), *_functions(Tensor, "_is_any_true"))
"""Checks that any element of a mask is true."""
ASSERT_ASYNC: Final = _functions(torch, "_assert_async")
"""An assertion on a tensor that does not wait for its values."""
IS_LEFT_ALIGNED: Final = _functions(torch, "_nested_tensor_from_mask_left_aligned")
"""The check of :class:`torch.nn.TransformerEncoder` whether padding can be dropped."""
GROUPED_MM: Final = (*_functions(torch, "_grouped_mm"), *_functions(F, "grouped_mm"))
"""Products of groups of rows with a matrix each, as mixtures of experts compute them."""
PACK_SEQUENCE: Final = _functions(_VF, "_pack_padded_sequence")
"""Called by :func:`torch.nn.utils.rnn.pack_padded_sequence`."""
PAD_SEQUENCE: Final = _functions(_VF, "_pad_packed_sequence")
"""Called by :func:`torch.nn.utils.rnn.pad_packed_sequence`."""
RECURRENT: Final = _functions(_VF, "lstm gru rnn_tanh rnn_relu")
"""Recurrent layers of :mod:`torch.nn`."""
RECURRENT_CELLS: Final = _functions(_VF, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
"""Single steps of recurrent layers."""
