"""Rules for the layers of PyTorch's extensions, by the names of their operators."""

from __future__ import annotations

import torch
from torch import Tensor

from ..steps import union
from ..tracer import Tracer, rule


@rule("torchvision.deform_conv2d")
def deformable_convolution(
    tracer: Tracer, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *options: int
) -> Tensor:
    """A convolution that reads its input where the offsets tell it to."""
    moved = tracer.like(input, union(*map(tracer.sources, (input, offset, mask))))
    stride, padding, dilation, groups = options[:2], options[2:4], options[4:6], options[6]
    out: Tensor = tracer.call(torch.conv2d, moved, weight, bias, stride, padding, dilation, groups)
    return out
