"""ATen operators, as exported programs and TorchScript call them: each as the Python function that has a rule.

Most have the name and the arguments of a function of ``torch``, ``Tensor`` or ``torch.nn.functional``, which
:func:`~ghn_pyg.tracing.tracer.python_function` finds by itself. Here are the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tracer import Rule, Tracer, rule


def _aten(*names: str) -> Callable[[Rule], Rule]:
    return rule(*(f"aten.{name}" for name in names))


def _as(function: Callable[..., Any], *order: int | None, results: int = 1) -> Rule:
    """Calls ``function`` with the arguments at the positions ``order``; further results are statistics without use."""

    def call(tracer: Tracer, *args: Any, **_: Any) -> Any:
        result = tracer.call(function, *(None if at is None or at >= len(args) else args[at] for at in order))
        return result if results == 1 else (result, *_statistics(result, results - 1))

    return call


def _statistics(result: Tensor, count: int) -> list[Tensor]:
    return [torch.empty(0, dtype=result.dtype, device="meta") for _ in range(count)]


_BATCH_NORM = (F.batch_norm, 0, None, None, 1, 2)
_aten("batch_norm", "instance_norm")(_as(*_BATCH_NORM))
_aten("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")(
    _as(*_BATCH_NORM, results=3)
)
_aten("cudnn_batch_norm", "_batch_norm_with_update", "_batch_norm_no_update")(_as(*_BATCH_NORM, results=4))
_aten("native_layer_norm")(_as(F.layer_norm, 0, 1, 2, 3, results=3))
_aten("native_group_norm")(_as(F.group_norm, 0, 6, 1, 2, results=3))
_aten("_fused_rms_norm")(_as(F.rms_norm, 0, 1, 2, results=2))
_aten("embedding")(_as(F.embedding, 1, 0))
_aten("_unsafe_view", "_reshape_alias")(_as(Tensor.reshape, 0, 1))
_aten("alias", "lift_fresh", "lift_fresh_copy")(_as(Tensor.detach, 0))
_aten("split_with_sizes")(lambda tracer, input, sizes, dim=0: tracer.call(torch.split, input, list(sizes), dim))
_aten("_softmax", "_safe_softmax")(_as(F.softmax, 0, 1))
_aten("_log_softmax")(_as(F.log_softmax, 0, 1))
_aten("_prelu_kernel")(_as(torch.prelu, 0, 1))
_aten("_local_scalar_dense")(_as(Tensor.item, 0))
_aten("native_dropout")(_as(F.dropout, 0, results=2))
_aten("_adaptive_avg_pool2d")(_as(F.adaptive_avg_pool2d, 0, 1))
_aten("_adaptive_avg_pool3d")(_as(F.adaptive_avg_pool3d, 0, 1))
_aten("adaptive_max_pool2d", "adaptive_max_pool3d")(
    lambda tracer, input, size: tracer.call(
        F.adaptive_max_pool2d_with_indices if len(size) == 2 else F.adaptive_max_pool3d_with_indices, input, size
    )
)


@_aten("max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool_with_indices(
    tracer: Tracer, input: Tensor, size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Any:
    """A max pool, whose empty stride stands for the size of its windows."""
    function = {2: F.max_pool2d_with_indices, 3: F.max_pool3d_with_indices}[len(size)]
    return tracer.call(function, input, size, stride or None, padding, dilation, ceil)


@_aten("convolution", "_convolution", "convolution_overrideable")
def convolution(
    tracer: Tracer, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, *_: Any,
) -> Any:  # fmt: skip
    """A convolution of any number of dimensions, transposed or not."""
    dims = weight.dim() - 2
    stride, padding, dilation = (tuple(option) * (dims // len(option)) for option in (stride, padding, dilation))
    if not transposed:
        return tracer.call(getattr(torch, f"conv{dims}d"), input, weight, bias, stride, padding, dilation, groups)
    function = getattr(torch, f"conv_transpose{dims}d")
    return tracer.call(function, input, weight, bias, stride, padding, tuple(output_padding), groups, dilation)


@_aten("slice")
def slice_(
    tracer: Tracer, input: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """A slice of one dimension."""
    return tracer.call(Tensor.__getitem__, input, (*(slice(None),) * (dim % input.dim()), slice(start, end, step)))


@_aten("select")
def select(tracer: Tracer, input: Tensor, dim: int, index: int) -> Any:
    """One index of a dimension."""
    return tracer.call(Tensor.__getitem__, input, (*(slice(None),) * (dim % input.dim()), index))


@_aten("index")
def index(tracer: Tracer, input: Tensor, indices: Sequence[Tensor | None]) -> Any:
    """Elements at indices of the leading dimensions."""
    given = tuple(slice(None) if at is None else at for at in indices)
    return tracer.call(Tensor.__getitem__, input, given if len(given) > 1 else given[0])


@_aten("einsum")
def einsum(tracer: Tracer, equation: str, tensors: Sequence[Tensor], **_: Any) -> Any:
    """A sum of products over indices."""
    return tracer.call(torch.einsum, equation, *tensors)


@_aten("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(
    tracer: Tracer, weight: Tensor, indices: Tensor, offsets: Tensor, scale: bool = False, mode: int = 0, *_: Any
) -> Any:
    """Sums, means or maxima of rows of a table."""
    out = tracer.call(F.embedding_bag, indices, weight, offsets, None, 2.0, scale, ("sum", "mean", "max")[mode])
    return (out, *_statistics(out, 3))


@_aten("_to_copy")
def to_copy(tracer: Tracer, input: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """A change of type."""
    return tracer.call(Tensor.to, input, dtype or input.dtype)


def _attention(results: int, mask_at: int | None) -> Rule:
    def attention(tracer: Tracer, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get("attn_mask") if mask_at is None else args[mask_at]
        out = tracer.call(F.scaled_dot_product_attention, query, key, value, mask)
        return (out, *_statistics(out, results - 1))

    return attention


_aten("_scaled_dot_product_flash_attention_for_cpu")(_attention(2, None))
_aten("_scaled_dot_product_attention_math")(_attention(2, 0))
_aten("_scaled_dot_product_efficient_attention")(_attention(4, 0))
_aten("_scaled_dot_product_flash_attention")(_attention(9, None))
_aten("_scaled_dot_product_cudnn_attention")(_attention(9, 0))
