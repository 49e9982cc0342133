"""Rules for convolutions, transposed convolutions and deformable ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..steps import union
from ..tracer import Rule, Tracer, rule
from .layer_steps import entered, expect, layer_output, weight_step


def each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """An option of a convolution or pool for each of its dimensions."""
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims // len(value))


def _kind(groups: int, dilation: int | Sequence[int]) -> str:
    if groups == 1:
        return "conv"
    return "dil_conv" if (dilation if isinstance(dilation, int) else min(dilation)) > 1 else "sep_conv"


def _size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _convolution(dims: int) -> Rule:
    def conv(
        tracer: Tracer, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        # The shape is computed by hand: meta kernels would add a sixth to the time that tracing a ResNet-50 takes.
        shape, (filters, depth, *kernel) = tuple(input.shape), weight.shape
        expect(len(shape) in (dims + 1, dims + 2), f"conv{dims}d got an input of shape {shape}")
        *lead, channels = shape[:-dims]
        expect(
            channels == depth * groups,
            f"conv{dims}d expected {depth * groups} input channels, got {channels} (input {shape})",
        )
        sizes = shape[-dims:]
        if padding != "same":
            paddings = each(0 if padding == "valid" else padding, dims)
            options = (each(stride, dims), paddings, each(dilation, dims))
            sizes = tuple(map(_size, sizes, kernel, *options))
        expect(min(sizes) > 0, f"conv{dims}d with kernel {tuple(kernel)} got an input too small: {shape}")
        sources = weight_step(tracer, _kind(groups, dilation), entered(tracer, input), weight, bias)
        return layer_output(tracer, (*lead, filters, *sizes), input.dtype, sources)

    return conv


def _transposed_convolution(function: Callable[..., Tensor]) -> Rule:
    def conv_transpose(
        tracer: Tracer, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Tensor:  # fmt: skip
        channels = weight.shape[0]  # meta kernels do not check them
        expect(input.shape[1 - weight.dim()] == channels, f"{function.__name__} expected {channels} input channels")
        options = (stride, padding, output_padding, groups, dilation)
        shape = function(tracer.lift(input), tracer.lift(weight), None, *options).shape
        kind, entering = _kind(groups, dilation), entered(tracer, input)
        sources = weight_step(tracer, kind, entering, weight, bias, "in_out", groups)
        return layer_output(tracer, shape, input.dtype, sources)

    return conv_transpose


for _dims in (1, 2, 3):
    rule(getattr(torch, f"conv{_dims}d"))(_convolution(_dims))
for _function in (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d):
    rule(_function)(_transposed_convolution(_function))


@rule("torchvision.deform_conv2d")
def deformable_convolution(
    tracer: Tracer, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *options: int
) -> Tensor:
    """A convolution that samples its input at learned offsets."""
    moved = tracer.like(input, union(*map(tracer.sources, (input, offset, mask))))
    stride, padding, dilation, groups = options[:2], options[2:4], options[4:6], options[6]
    out: Tensor = tracer.call(torch.conv2d, moved, weight, bias, stride, padding, dilation, groups)
    return out
