"""The operations of a cell as parts of a network (GHN-2, arXiv 2110.13100, table 1; DARTS, arXiv 1806.09055)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...graph.arch_data import NO_SHAPE
from ...graph.node_types import PRIMITIVE_ID
from .parts import (
    GELU,
    IDENTITY,
    INPUT,
    RELU,
    Node,
    Part,
    batch_norm,
    cached,
    chain,
    convolution,
    extend,
    join,
    layer_norm,
    linear,
    pool,
)

HEADS: Final = 8
"""Attention heads, which must divide the channels."""


class Operation(nn.Module):
    """A chain of layers under the name ``op``, as published parameter names have it."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', ⌈H/stride⌉, ⌈W/stride⌉)."""
        return self.op(x)


class Nothing(nn.Module):
    """Stands for ``none``: its branch is dropped, so that it is never called."""


class FactorizedReduction(nn.Module):
    """Halves the size: two strided 1×1 convolutions on grids shifted by one position, concatenated and normalised.

    Args:
        conv_1: Convolution on the even positions.
        conv_2: Convolution on the odd positions.
        bn: Norm, or an identity.
    """

    def __init__(self, conv_1: nn.Module, conv_2: nn.Module, bn: nn.Module) -> None:
        super().__init__()
        self.conv_1 = conv_1
        self.conv_2 = conv_2
        self.bn = bn

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', ⌈H/2⌉, ⌈W/2⌉); maps of odd size count as continued with zeros."""
        x = F.relu(x)
        height, width = x.shape[-2:]
        odd = F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(odd[:, :, 1:, 1:])], 1))


class SqueezeExcitation(nn.Module):
    r"""A gate for each channel, :math:`x \cdot \mathrm{hardswish}(W_2 \, \mathrm{relu}(W_1 \bar x))`.

    Args:
        fc1: Linear layer from C to C/2 features.
        fc2: Linear layer back.
        stride: Stride of the output, 1 or 2.
    """

    def __init__(self, fc1: nn.Module, fc2: nn.Module, stride: int) -> None:
        super().__init__()
        self.fc1 = fc1
        self.fc2 = fc2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
        gate = F.hardswish(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return x[:, :, :: self.stride, :: self.stride] * gate[:, :, None, None]


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, to_qkv: nn.Module, to_out: nn.Module) -> None:
        super().__init__()
        self.to_qkv = to_qkv
        self.to_out = to_out

    def forward(self, tokens: Tensor) -> Tensor:
        """Keeps the shape (B, N, C)."""
        batch, count, channels = tokens.shape
        qkv = self.to_qkv(tokens).view(batch, count, 3, HEADS, channels // HEADS)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(mixed.transpose(1, 2).reshape(batch, count, channels))


class FeedForward(nn.Module):
    """Two linear layers under the name ``net``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor) -> Tensor:
        """Keeps the shape (B, N, C)."""
        return self.net(tokens)


class TransformerBlock(nn.Module):
    """A pre-norm transformer block over the positions (ViT, arXiv 2010.11929).

    Args:
        ln1: Norm before the attention.
        attn: Self-attention.
        ln2: Norm before the feed-forward layers.
        ff: Feed-forward layers.
    """

    def __init__(self, ln1: nn.Module, attn: nn.Module, ln2: nn.Module, ff: nn.Module) -> None:
        super().__init__()
        self.ln1 = ln1
        self.attn = attn
        self.ln2 = ln2
        self.ff = ff

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (B, C, H, W)."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attn(self.ln1(tokens))
        tokens = tokens + self.ff(self.ln2(tokens))
        return tokens.transpose(1, 2).reshape(x.shape)


def norm_of(norm: str | None, channels: int) -> Part:
    """The norm of that name; without one an identity, so that the layers behind keep their names."""
    return IDENTITY if norm is None else batch_norm(channels)


def operation(*layers: Part) -> Part:
    """A chain of layers under the name ``op``."""
    inner = chain(*layers, name=".op")
    return Part(lambda: Operation(inner.build()), inner.nodes)


@cached
def pointwise(into: int, out: int, norm: str | None) -> Part:
    """ReLU, 1×1 convolution, norm."""
    return operation(RELU, convolution(into, out), norm_of(norm, out))


@cached
def reduction(into: int, out: int, norm: str | None) -> Part:
    """A :class:`FactorizedReduction`: two convolutions → concat → norm."""
    halves = (convolution(into, out // 2, stride=2), convolution(into, out - out // 2, stride=2))
    normalise = norm_of(norm, out)
    nodes: list[Node] = []
    parts = [extend(nodes, f".conv_{number}", half, INPUT) for number, half in enumerate(halves, 1)]
    extend(nodes, ".bn", normalise, join(nodes, "concat", ":concat", parts))
    return Part(lambda: FactorizedReduction(halves[0].build(), halves[1].build(), normalise.build()), tuple(nodes))


def _convolution(kernel: int) -> Callable[..., Part]:
    """ReLU, convolution, norm."""
    return lambda channels, stride, norm: operation(
        RELU, convolution(channels, channels, kernel, stride), norm_of(norm, channels)
    )


def _crossed(size: int) -> Callable[..., Part]:
    """ReLU, a flat convolution, an upright one, norm; each strides along its kernel."""
    return lambda channels, stride, norm: operation(
        RELU,
        convolution(channels, channels, (1, size), (1, stride)),
        convolution(channels, channels, (size, 1), (stride, 1)),
        norm_of(norm, channels),
    )


def _separable(kernel: int, dilation: int, repeats: int) -> Callable[..., Part]:
    """ReLU, depthwise convolution, 1×1 convolution, norm, some times over; the first is strided."""

    def build(channels: int, stride: int, norm: str | None) -> Part:
        layers: list[Part] = []
        for step in (stride, *(1 for _ in range(repeats - 1))):
            depthwise = convolution(channels, channels, kernel, step, dilation, groups=channels)
            layers += [RELU, depthwise, convolution(channels, channels), norm_of(norm, channels)]
        return operation(*layers)

    return build


def _pool(kind: Any) -> Callable[..., Part]:
    return lambda channels, stride, norm: pool(kind, stride)


def _none(channels: int, stride: int, norm: str | None) -> Part:
    return Part(Nothing)


def _skip(channels: int, stride: int, norm: str | None) -> Part:
    return IDENTITY if stride == 1 else reduction(channels, channels, norm)


def _gate(channels: int, stride: int, norm: str | None) -> Part:
    """The squeeze is folded away, so the gate is computed from what it multiplies."""
    fc1, fc2 = linear(channels, channels // 2), linear(channels // 2, channels)
    nodes: list[Node] = []
    gate = extend(nodes, ".fc2", fc2, extend(nodes, ".fc1", fc1, INPUT))
    nodes.append(Node(PRIMITIVE_ID["cse"], ":cse", (), NO_SHAPE, (INPUT, gate)))
    return Part(lambda: SqueezeExcitation(fc1.build(), fc2.build(), stride), tuple(nodes))


def _attention(channels: int, stride: int, norm: str | None) -> Part:
    if channels % HEADS:
        raise ValueError(f"attention has {HEADS} heads, which must divide the channels, got {channels}; change width")
    if stride != 1:
        raise ValueError(f"attention does not stride, got stride {stride}")
    first, second = layer_norm(channels), layer_norm(channels)
    to_qkv, to_out = linear(channels, 3 * channels, bias=False), chain(linear(channels, channels))
    # The published block has a dropout, which does nothing, between activation and second layer.
    net = chain(linear(channels, channels), GELU, IDENTITY, linear(channels, channels))

    nodes: list[Node] = []
    qkv = extend(nodes, ".attn.to_qkv", to_qkv, extend(nodes, ".ln1", first, INPUT))
    nodes.append(Node(PRIMITIVE_ID["msa"], ".attn:msa", (), NO_SHAPE, (qkv,)))
    attended = extend(nodes, ".attn.to_out", to_out, qkv + 1)
    middle = join(nodes, "sum", ":sum", (INPUT, attended))
    end = extend(nodes, ".ff.net", net, extend(nodes, ".ln2", second, middle))
    join(nodes, "sum", ":sum#2", (middle, end))

    def build() -> nn.Module:
        attention = Attention(to_qkv.build(), to_out.build())
        return TransformerBlock(first.build(), attention, second.build(), FeedForward(net.build()))

    return Part(build, tuple(nodes))


_PARTS: Final[dict[str, Callable[..., Part]]] = {
    "none": _none,
    "max_pool_3x3": _pool("max_pool"),
    "avg_pool_3x3": _pool("avg_pool"),
    "skip_connect": _skip,
    "sep_conv_3x3": _separable(3, dilation=1, repeats=2),
    "sep_conv_5x5": _separable(5, dilation=1, repeats=2),
    "dil_conv_3x3": _separable(3, dilation=2, repeats=1),
    "dil_conv_5x5": _separable(5, dilation=2, repeats=1),
    "conv_1x1": _convolution(1),
    "conv_7x1_1x7": _crossed(7),
    "conv_3x3": _convolution(3),
    "conv_5x5": _convolution(5),
    "conv_7x7": _convolution(7),
    "msa": _attention,
    "cse": _gate,
}


@cached
def make_operation(name: str, channels: int, stride: int, norm: str | None) -> Part:
    """An operation of :data:`~ghn_pyg.families.deepnets.genotype.OPERATIONS` as a part of a network.

    Args:
        name: Its name.
        channels: Channels of its input and output.
        stride: 1 or 2; 1 for ``msa``, as networks with attention never stride.
        norm: ``"bnorm"`` or ``None``.

    Raises:
        ValueError: If it cannot have so many channels, or this stride.

    Example:
        >>> make_operation("conv_3x3", 8, 1, None).size
        576
    """
    return _PARTS[name](channels, stride, norm)
