"""Rules for gradients that a forward pass takes, as energy models do: they depend on what is differentiated."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ...utils.compat import MAKE_DUAL, UNPACK_DUAL
from ...utils.nested_tensors import tensors_in
from ..tracer import Tracer, rule
from ..values import Value


@rule(torch.autograd.grad)
def grad(
    tracer: Tracer, outputs: Any, inputs: Any, grad_outputs: Any = None, *_: Any, is_grads_batched: bool = False,
    **__: Any,
) -> Sequence[Tensor]:  # fmt: skip
    """A gradient for each input, computed by the layers between them once more; perhaps for a batch of vectors."""
    value = Value(tracer.merged(tensors_in((outputs, grad_outputs))).sources)
    batch = next(tensors_in((grad_outputs,))).shape[:1] if is_grads_batched else ()
    return tuple(tracer.emit((*batch, *tensor.shape), tensor.dtype, value) for tensor in tensors_in((inputs,)))


@rule(*MAKE_DUAL)
def make_dual(tracer: Tracer, tensor: Tensor, tangent: Tensor, *_: Any, **__: Any) -> Tensor:
    """A tensor for forward differentiation; what is computed from it has tangents that depend on both."""
    tracer.has_wrapped = True
    return tracer.emit(tensor.shape, tensor.dtype, tracer.merged((tensor, tangent)))


@rule(*UNPACK_DUAL)
def unpack_dual(tracer: Tracer, dual: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    """A tensor and its tangent."""
    return tracer.view(dual, dual.shape), tracer.view(dual, dual.shape)


@rule(Tensor.backward, torch.autograd.backward)
def backward(tracer: Tracer, tensors: Any, *_: Any, **__: Any) -> None:
    """Gradients that are read from ``Tensor.grad`` later."""
    tracer.differentiated = tracer.merged(tensors_in((tensors,))).sources


@rule(Tensor.retain_grad)
def retain_grad(tracer: Tracer, _: Tensor) -> None:
    """No gradients are computed."""


@rule(Tensor.register_hook)
def register_hook(tracer: Tracer, *_: Any) -> RemovableHandle:
    """Hooks on gradients are not called."""
    return RemovableHandle(OrderedDict())
