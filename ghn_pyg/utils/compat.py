"""Private names of torch and PyTorch Geometric that the package uses, each with a fallback where it is missing."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

# --- function transforms and compilers -------------------------------------------------------------------------------

_functorch: Any = getattr(torch._C, "_functorch", None)
_is_wrapped = getattr(_functorch, "is_functorch_wrapped_tensor", None)
_unwrap = getattr(_functorch, "get_unwrapped", None)
_batch_dimension = getattr(_functorch, "maybe_get_bdim", None)
_is_legacy_batched = getattr(_functorch, "is_legacy_batchedtensor", None)  # of is_grads_batched=True
_transforms_active = getattr(torch._C, "_are_functorch_transforms_active", None)  # inside vmap, grad, jvp, …
try:
    from torch._subclasses.fake_tensor import FakeTensor  # a tensor without values, for compilers

    _FAKE: tuple[type, ...] = (FakeTensor,)
except ImportError:
    _FAKE = ()


def unwrap_functorch(tensor: Tensor) -> Tensor | None:
    """The tensor that a function transform such as ``torch.func.vmap`` wraps; ``None`` for any other tensor.

    Without the private names, tensors inside of function transforms count as constants.
    """
    return _unwrap(tensor) if _is_wrapped and _unwrap and _is_wrapped(tensor) else None


def batch_dimension(tensor: Tensor) -> int | None:
    """The dimension of the wrapped tensor that ``torch.func.vmap`` maps over; ``None`` if it maps over none."""
    dim: int = _batch_dimension(tensor) if _batch_dimension else -1
    return None if dim < 0 else dim


def has_plain_values(*tensors: Tensor) -> bool:
    """Whether values may be read: not inside a function transform or a compiler, nor of fake tensors.

    Without the private names it is ``False``, which leads to slower, always correct code.
    """
    if torch.compiler.is_compiling() or _transforms_active is None or _is_legacy_batched is None:
        return False
    if _transforms_active():
        return False
    return not any(_is_legacy_batched(x) or is_fake(x) or unwrap_functorch(x) is not None for x in tensors)


def in_transform(*tensors: Tensor) -> bool:
    """Whether a transform such as ``torch.func.vmap`` or a forward-mode derivative is at work, in eager mode."""
    if torch.compiler.is_compiling():
        return False
    if _transforms_active is None or _transforms_active():
        return True
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor only pretends to have values, for compilers."""
    return isinstance(tensor, _FAKE)


@contextlib.contextmanager
def outside_of_modes() -> Iterator[None]:
    """Leaves function transforms, such as ``torch.func.grad``, and modes, such as that of fake tensors.

    Without the private names it leaves none.
    """
    with contextlib.ExitStack() as stack:
        if _transforms_active and _transforms_active():
            stack.enter_context(_context("torch._functorch.pyfunctorch", "temporarily_clear_interpreter_stack"))
        if getattr(torch._C, "_len_torch_dispatch_stack", int)():
            stack.enter_context(_context("torch.utils._python_dispatch", "_disable_current_modes"))
        yield


def _context(module: str, name: str) -> contextlib.AbstractContextManager[Any]:
    context: contextlib.AbstractContextManager[Any]
    context = getattr(importlib.import_module(module), name, contextlib.nullcontext)()
    return context


def run_uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Runs parts of a network that compile themselves as plain Python.

    torch._dynamo, which takes seconds to import, is loaded already if anything compiles itself.
    """
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def script_attributes(module: Any) -> dict[str, Any]:
    """The attributes of a TorchScript module other than its parameters and submodules.

    Without the private name, and for modules that were loaded from a file, only its mode.
    """
    compiled: Any = getattr(module, "_concrete_type", None)
    names: Iterable[str] = compiled.get_attributes() if hasattr(compiled, "get_attributes") else ("training",)
    parameters = {name for name, _ in module.named_parameters(recurse=False)}
    return {name: getattr(module, name) for name in names if name not in parameters and hasattr(module, name)}


# --- functions that tracing treats; one that torch does not have needs no rule ---------------------------------------

try:  # what ``torch.ops`` holds: an operator, one of its overloads, and one that takes functions
    from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

    OPERATORS: tuple[type, ...] = (OpOverload, OpOverloadPacket, HigherOrderOperator)
except ImportError:  # operators then run for the shape of their result only
    OPERATORS = ()


def operator_name(operator: Any) -> str:
    """The name of an operator without its overload, such as ``"aten.add_"``."""
    return str(getattr(operator, "overloadpacket", operator))


try:
    from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
except ImportError:  # operators of TorchScript then run for the shape of their result only

    class TorchDispatchMode(contextlib.nullcontext[None]):  # type: ignore[no-redef]
        """Stands for a mode that sees nothing."""


without_dispatch: Final[Callable[[], contextlib.AbstractContextManager[Any]]] = getattr(
    torch._C, "_DisableTorchDispatch", contextlib.nullcontext
)
"""Within this context functions do not reach modes of ``__torch_dispatch__``."""


def device_constructors() -> Iterable[Callable[..., Any]]:
    """The functions of torch that create a tensor on a ``device``."""
    try:
        from torch.utils._device import _device_constructors
    except ImportError:
        names = (
            "empty empty_strided ones arange eye full linspace logspace rand randn randint randperm range zeros tensor "
            "as_tensor tril_indices triu_indices hann_window hamming_window bartlett_window blackman_window"
        )
        return functions(names, torch)
    constructors: Iterable[Callable[..., Any]] = _device_constructors()
    return constructors


def functions(names: str, *owners: Any) -> frozenset[Any]:
    """The functions of these names that there are; by default those of torch, tensors and neural networks."""
    owners = owners or (torch, Tensor, F, torch.special)
    return frozenset(getattr(owner, name) for name in names.split() for owner in owners if hasattr(owner, name))


_VF: Final = getattr(torch, "_VF", None)
IS_ALL_TRUE: Final = functions("_is_all_true")
"""Checks of ``torch.distributions`` that all elements of a mask are true."""
IS_ANY_TRUE: Final = functions("_is_any_true")
"""Checks that any element of a mask is true."""
ASSERT_ASYNC: Final = functions("_assert_async", torch)
"""An assertion on a tensor that does not wait for its values."""
IS_LEFT_ALIGNED: Final = functions("_nested_tensor_from_mask_left_aligned", torch)
"""The check of :class:`torch.nn.TransformerEncoder` whether padding can be dropped."""
_BUILT_IN: Final = getattr(torch._C, "_VariableFunctions", None)
INDEX_SELECT: Final = functions("index_select", _BUILT_IN)
"""``torch.index_select`` before PyTorch Geometric puts a function of its own in its place."""
SELECT: Final = functions("select", _BUILT_IN)
"""The same for ``torch.select``."""
GROUPED_MM: Final = functions("_grouped_mm grouped_mm")
"""Products of groups of rows with a matrix each, as mixtures of experts compute them."""
PACK_SEQUENCE: Final = functions("_pack_padded_sequence", _VF)
"""Called by :func:`torch.nn.utils.rnn.pack_padded_sequence`."""
PAD_SEQUENCE: Final = functions("_pad_packed_sequence", _VF)
"""Called by :func:`torch.nn.utils.rnn.pad_packed_sequence`."""
RECURRENT: Final = functions("lstm gru rnn_tanh rnn_relu", _VF)
"""Recurrent layers of :mod:`torch.nn`."""
RECURRENT_CELLS: Final = functions("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell", _VF)
"""Single steps of recurrent layers."""
MAKE_DUAL: Final = functions("_make_dual", _VF)
"""Called by :func:`torch.autograd.forward_ad.make_dual` and :func:`torch.func.jvp`: a tensor that has a tangent."""
UNPACK_DUAL: Final = functions("_unpack_dual", _VF)
"""Called by :func:`torch.autograd.forward_ad.unpack_dual`: the tensor and its tangent."""
NESTED_FACTORIES: Final = functions("_nested_tensor_from_tensor_list _nested_view_from_jagged", torch)
"""Called by the functions of :mod:`torch.nested` that make a nested tensor of others."""

# --- batches of PyTorch Geometric ------------------------------------------------------------------------------------


def set_batch_slices(batch: Any, name: str, ends: Sequence[int]) -> None:
    """Tells a PyG ``Batch`` where each graph's part of an attribute starts, so that ``to_data_list`` gives it back.

    Without the private dictionaries the attribute stays with the batch only.
    """
    if hasattr(batch, "_slice_dict") and hasattr(batch, "_inc_dict"):
        # New dictionaries: copies of a batch share them.
        batch._slice_dict = {**batch._slice_dict, name: torch.tensor(ends)}
        batch._inc_dict = {**batch._inc_dict, name: torch.zeros(len(ends) - 1, dtype=torch.long)}


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
