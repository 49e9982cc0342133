"""Rules for pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from torch import Tensor

from ...utils.compat import functions
from ...utils.nested_tensors import map_tensors, tensors_in
from ..tracer import Rule, Tracer, rule
from ..values import Value
from .convolution import each
from .layer_steps import expect

_AVERAGES: Final = functions("avg_pool1d avg_pool2d avg_pool3d")


def _pool(function: Callable[..., Any], kind: str, dims: int, position: int | None = 0) -> Rule:
    """A pool whose windows are the argument at ``position``, or follow from the sizes if it is adaptive."""

    def pool(tracer: Tracer, input: Tensor, *args: Any, **options: Any) -> Any:
        result = function(tracer.lift(input), *args, **options)  # perhaps with indices
        sizes = input.shape[-dims:]
        if position is None:
            targets = next(tensors_in([result])).shape[-dims:]
            windows = tuple(-(-size // target) for size, target in zip(sizes, targets, strict=True))
        else:
            windows = each(options["kernel_size"] if "kernel_size" in options else args[position], dims)
        kernel = (windows[-2], windows[-1]) if dims > 1 else (windows[0], 1)
        pooled = Value(tracer.step(kind, tracer.sources(input), kernel=kernel))
        if function in _AVERAGES and windows == sizes and pooled.sources:
            tracer.steps[pooled.sources[0]].whole = True
        # Indices come from it, too: unpooling takes them.
        return map_tensors(lambda part: tracer.emit(part.shape, part.dtype, pooled), result)

    return pool


def _adaptive_avg_pool(dims: int) -> Rule:
    def adaptive_avg_pool(tracer: Tracer, input: Tensor, output_size: Any) -> Tensor:
        # The shape is computed by hand: meta kernels would add a fifth to the time that EfficientNetV2-L takes.
        *lead, _ = shape = tuple(input.shape)
        expect(len(lead) in (dims, dims + 1), f"adaptive_avg_pool{dims}d got an input of shape {shape}")
        wanted = zip(each(output_size, dims), shape[-dims:], strict=True)
        sizes = [size if target is None else target for target, size in wanted]
        value = Value(tracer.step("glob_avg", tracer.sources(input)))
        return tracer.emit((*shape[:-dims], *sizes), input.dtype, value)

    return adaptive_avg_pool


for _dims in (1, 2, 3):
    for _function in functions(f"max_pool{_dims}d max_pool{_dims}d_with_indices"):
        rule(_function)(_pool(_function, "max_pool", _dims))
    for _function in functions(f"avg_pool{_dims}d"):
        rule(_function)(_pool(_function, "avg_pool", _dims))
    for _function in functions(f"lp_pool{_dims}d"):
        rule(_function)(_pool(_function, "avg_pool", _dims, position=1))
    for _function in functions(f"adaptive_max_pool{_dims}d adaptive_max_pool{_dims}d_with_indices"):
        rule(_function)(_pool(_function, "max_pool", _dims, position=None))
    rule(*functions(f"adaptive_avg_pool{_dims}d"))(_adaptive_avg_pool(_dims))
