"""Rules for pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tracer import Tracer, rule
from ..values import Value

_Size = int | Sequence[int]


def _each(value: _Size, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value) * (count // len(value))


def pool_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Output size of a pool, with PyTorch's rule that in ceil mode the last window starts inside the input."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (-(-span // stride) if ceil_mode else span // stride) + 1
    return out - 1 if ceil_mode and (out - 1) * stride >= size + padding else out


def _kernel(sizes: tuple[int, ...]) -> tuple[int, int]:
    """Height and width; a pool over a sequence has height only."""
    return (sizes[0], 1) if len(sizes) == 1 else (sizes[-2], sizes[-1])


def _pool(
    tracer: Tracer, kind: str, spatial: int, x: Tensor, kernel: _Size, stride: _Size | None, padding: _Size,
    dilation: _Size, ceil_mode: bool,
) -> Tensor:  # fmt: skip
    kernels = _each(kernel, spatial)
    strides = _each(stride, spatial) if stride not in (None, (), []) else kernels
    terms = zip(x.shape[-spatial:], kernels, strides, _each(padding, spatial), _each(dilation, spatial), strict=True)
    sizes = [pool_size(*term, ceil_mode) for term in terms]
    if min(sizes) < 1:
        raise RuntimeError(f"{kind} with kernel {kernels} got an input too small: {tuple(x.shape)}")
    sources = tracer.step(kind, tracer.sources(x), kernel=_kernel(kernels))
    return tracer.emit((*x.shape[:-spatial], *sizes), x.dtype, Value(sources))


def _max_pool(spatial: int) -> Any:
    def max_pool(
        tracer: Tracer, input: Tensor, kernel_size: _Size, stride: _Size | None = None, padding: _Size = 0,
        dilation: _Size = 1, ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        out = _pool(tracer, "max_pool", spatial, input, kernel_size, stride, padding, dilation, ceil_mode)
        return (out, tracer.emit(out.shape, torch.int64, Value())) if return_indices else out

    return max_pool


def _max_pool_with_indices(spatial: int) -> Any:
    pool = _max_pool(spatial)
    return lambda tracer, *args, **kwargs: pool(tracer, *args, **{**kwargs, "return_indices": True})


def _adaptive_max_pool_with_indices(spatial: int) -> Any:
    pool = _adaptive_max_pool(spatial)
    return lambda tracer, *args, **kwargs: pool(tracer, *args, **{**kwargs, "return_indices": True})


def _avg_pool(spatial: int) -> Any:
    def avg_pool(
        tracer: Tracer, input: Tensor, kernel_size: _Size, stride: _Size | None = None, padding: _Size = 0,
        ceil_mode: bool = False, *_: Any, **__: Any,
    ) -> Tensor:  # fmt: skip
        out = _pool(tracer, "avg_pool", spatial, input, kernel_size, stride, padding, 1, ceil_mode)
        if set(out.shape[-spatial:]) == {1} and padding in (0, (0,) * spatial) and (made := tracer.sources(out)):
            tracer.steps[made[0]].whole = True
        return out

    return avg_pool


def _lp_pool(spatial: int) -> Any:
    def lp_pool(
        tracer: Tracer, input: Tensor, norm_type: float, kernel_size: _Size, stride: _Size | None = None,
        ceil_mode: bool = False,
    ) -> Tensor:  # fmt: skip
        return _pool(tracer, "avg_pool", spatial, input, kernel_size, stride, 0, 1, ceil_mode)

    return lp_pool


def _target(x: Tensor, output_size: Any, spatial: int) -> tuple[int, ...]:
    wanted = (output_size,) * spatial if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if x.dim() not in (spatial + 1, spatial + 2):
        raise RuntimeError(f"adaptive pooling over {spatial} dimensions got an input of shape {tuple(x.shape)}")
    return tuple(size if want is None else int(want) for want, size in zip(wanted, x.shape[-spatial:], strict=True))


def _adaptive_avg_pool(spatial: int) -> Any:
    def adaptive_avg_pool(tracer: Tracer, input: Tensor, output_size: Any) -> Tensor:
        sizes = _target(input, output_size, spatial)
        sources = tracer.step("glob_avg", tracer.sources(input))
        return tracer.emit((*input.shape[:-spatial], *sizes), input.dtype, Value(sources))

    return adaptive_avg_pool


def _adaptive_max_pool(spatial: int) -> Any:
    def adaptive_max_pool(tracer: Tracer, input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        sizes = _target(input, output_size, spatial)
        kernels = tuple(-(-size // target) for size, target in zip(input.shape[-spatial:], sizes, strict=True))
        sources = tracer.step("max_pool", tracer.sources(input), kernel=_kernel(kernels))
        out = tracer.emit((*input.shape[:-spatial], *sizes), input.dtype, Value(sources))
        return (out, tracer.emit(out.shape, torch.int64, Value())) if return_indices else out

    return adaptive_max_pool


for _spatial, _max, _avg, _adaptive_avg, _adaptive_max in (
    (1, (F.max_pool1d, torch.max_pool1d), F.avg_pool1d, F.adaptive_avg_pool1d, F.adaptive_max_pool1d),
    (2, (F.max_pool2d, torch.max_pool2d), F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
    (3, (F.max_pool3d, torch.max_pool3d), F.avg_pool3d, F.adaptive_avg_pool3d, F.adaptive_max_pool3d),
):
    rule(*_max)(_max_pool(_spatial))
    rule(getattr(F, f"max_pool{_spatial}d_with_indices"))(_max_pool_with_indices(_spatial))
    rule(getattr(F, f"adaptive_max_pool{_spatial}d_with_indices"))(_adaptive_max_pool_with_indices(_spatial))
    rule(_avg)(_avg_pool(_spatial))
    rule(getattr(F, f"lp_pool{_spatial}d"))(_lp_pool(_spatial))
    rule(_adaptive_avg)(_adaptive_avg_pool(_spatial))
    rule(_adaptive_max)(_adaptive_max_pool(_spatial))
