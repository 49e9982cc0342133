"""The operations of a cell as building blocks (GHN-2, arXiv 2110.13100, table 1; DARTS, arXiv 1806.09055)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...graph.arch_data import NO_SHAPE
from ...graph.node_types import PRIMITIVE_ID
from .blocks import (
    GELU,
    IDENTITY,
    INPUT,
    RELU,
    Block,
    Node,
    append_block,
    append_join,
    batch_norm,
    cached,
    convolution,
    layer_norm,
    linear,
    pool,
    sequential,
)

HEADS: Final = 8
"""Number of attention heads, which must divide the channels."""


class NamedChildren(nn.Module):
    """A module whose children are given by name; the names are those of published parameters."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> nn.Module: ...


class FactorizedReduction(NamedChildren):
    """Halves the size by two strided 1×1 convolutions on grids shifted by one position, concatenated and normalised.

    Its children are ``conv_1`` for the even positions, ``conv_2`` for the odd positions and ``bn``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', ⌈H/2⌉, ⌈W/2⌉); maps of odd size are padded with zeros."""
        x = F.relu(x)
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(padded[:, :, 1:, 1:])], 1))


class SqueezeExcitation(NamedChildren):
    r"""A gate for each channel, :math:`x \cdot \mathrm{hardswish}(W_2 \, \mathrm{relu}(W_1 \bar x))`, possibly strided.

    Its children are the linear layers ``fc1`` from C to C/2 features and ``fc2`` back.
    """

    def __init__(self, stride: int, **children: nn.Module) -> None:
        super().__init__(**children)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
        gate = F.hardswish(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return x[:, :, :: self.stride, :: self.stride] * gate[:, :, None, None]


class Attention(NamedChildren):
    """Multi-head self-attention with the children ``to_qkv`` and ``to_out``."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Keeps the shape (B, N, C)."""
        batch, count, channels = tokens.shape
        qkv = self.to_qkv(tokens).view(batch, count, 3, HEADS, channels // HEADS)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(mixed.transpose(1, 2).reshape(batch, count, channels))


class TransformerBlock(NamedChildren):
    """A pre-norm transformer block over the positions (ViT, arXiv 2010.11929): ``ln1``, ``attn``, ``ln2``, ``ff``."""

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (B, C, H, W)."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attn(self.ln1(tokens))
        tokens = tokens + self.ff(self.ln2(tokens))
        return tokens.transpose(1, 2).reshape(x.shape)


def make_norm(norm: str | None, channels: int) -> Block:
    """A batch norm for ``"bnorm"``, an identity for ``None``, which keeps the names of the layers after it."""
    return IDENTITY if norm is None else batch_norm(channels)


def operation(*layers: Block) -> Block:
    """A sequence of layers under the name ``op``."""
    op = sequential(*layers, name=".op")
    return Block(lambda: nn.Sequential(OrderedDict(op=op.build())), op.nodes)


@cached
def pointwise(in_channels: int, out_channels: int, norm: str | None) -> Block:
    """ReLU, 1×1 convolution, norm."""
    return operation(RELU, convolution(in_channels, out_channels), make_norm(norm, out_channels))


@cached
def reduction(in_channels: int, out_channels: int, norm: str | None) -> Block:
    """A :class:`FactorizedReduction`."""
    half = out_channels // 2
    convs = (convolution(in_channels, half, stride=2), convolution(in_channels, out_channels - half, stride=2))
    bn = make_norm(norm, out_channels)
    nodes: list[Node] = []
    outputs = [append_block(nodes, f".conv_{number}", conv, INPUT) for number, conv in enumerate(convs, 1)]
    append_block(nodes, ".bn", bn, append_join(nodes, "concat", ":concat", outputs))

    def build() -> nn.Module:
        return FactorizedReduction(conv_1=convs[0].build(), conv_2=convs[1].build(), bn=bn.build())

    return Block(build, tuple(nodes))


Factory = Callable[[int, int, str | None], Block]
"""(channels, stride, norm) → block."""


def _convolution(kernel: int) -> Factory:
    """ReLU, convolution, norm."""
    return lambda channels, stride, norm: operation(
        RELU, convolution(channels, channels, kernel, stride), make_norm(norm, channels)
    )


def _crossed(size: int) -> Factory:
    """ReLU, a horizontal convolution, a vertical one, norm; each strides along its kernel."""
    return lambda channels, stride, norm: operation(
        RELU,
        convolution(channels, channels, (1, size), (1, stride)),
        convolution(channels, channels, (size, 1), (stride, 1)),
        make_norm(norm, channels),
    )


def _separable(kernel: int, dilation: int, repeats: int) -> Factory:
    """ReLU, depthwise convolution, 1×1 convolution, norm, repeated; only the first is strided."""

    def build(channels: int, stride: int, norm: str | None) -> Block:
        layers: list[Block] = []
        for repeat in range(repeats):
            step = 1 if repeat else stride
            depthwise = convolution(channels, channels, kernel, step, dilation, groups=channels)
            layers += [RELU, depthwise, convolution(channels, channels), make_norm(norm, channels)]
        return operation(*layers)

    return build


def _pool(node_type: Literal["max_pool", "avg_pool"]) -> Factory:
    return lambda channels, stride, norm: pool(node_type, stride)


def _skip(channels: int, stride: int, norm: str | None) -> Block:
    return IDENTITY if stride == 1 else reduction(channels, channels, norm)


def _squeeze_excitation(channels: int, stride: int, norm: str | None) -> Block:
    """The graph has no node for the squeeze, so the gate is computed from the block's input."""
    fc1, fc2 = linear(channels, channels // 2), linear(channels // 2, channels)
    nodes: list[Node] = []
    gate = append_block(nodes, ".fc2", fc2, append_block(nodes, ".fc1", fc1, INPUT))
    nodes.append(Node(PRIMITIVE_ID["cse"], ":cse", (), NO_SHAPE, (INPUT, gate)))
    return Block(lambda: SqueezeExcitation(stride, fc1=fc1.build(), fc2=fc2.build()), tuple(nodes))


def _transformer(channels: int, stride: int, norm: str | None) -> Block:
    if channels % HEADS:
        raise ValueError(f"attention has {HEADS} heads, which must divide the channels, got {channels}; change width")
    ln1, ln2 = layer_norm(channels), layer_norm(channels)
    to_qkv, to_out = linear(channels, 3 * channels, bias=False), sequential(linear(channels, channels))
    # The published block has an inactive dropout between the activation and the second layer.
    net = sequential(linear(channels, channels), GELU, IDENTITY, linear(channels, channels))

    nodes: list[Node] = []
    qkv = append_block(nodes, ".attn.to_qkv", to_qkv, append_block(nodes, ".ln1", ln1, INPUT))
    nodes.append(Node(PRIMITIVE_ID["msa"], ".attn:msa", (), NO_SHAPE, (qkv,)))
    attended = append_block(nodes, ".attn.to_out", to_out, qkv + 1)
    middle = append_join(nodes, "sum", ":sum", (INPUT, attended))
    output = append_block(nodes, ".ff.net", net, append_block(nodes, ".ln2", ln2, middle))
    append_join(nodes, "sum", ":sum#2", (middle, output))

    def build() -> nn.Module:
        attention = Attention(to_qkv=to_qkv.build(), to_out=to_out.build())
        feed_forward = nn.Sequential(OrderedDict(net=net.build()))
        return TransformerBlock(ln1=ln1.build(), attn=attention, ln2=ln2.build(), ff=feed_forward)

    return Block(build, tuple(nodes))


_FACTORIES: Final[dict[str, Factory]] = {
    "none": lambda channels, stride, norm: Block(nn.Module),  # never called, as its branch is dropped
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
    "msa": _transformer,
    "cse": _squeeze_excitation,
}


@cached
def make_operation(name: str, channels: int, stride: int, norm: str | None) -> Block:
    """An operation of :data:`~ghn_pyg.families.deepnets.OPERATIONS` as a building block.

    Args:
        name: Its name.
        channels: Channels of its input and output.
        stride: 1 or 2; networks with ``msa`` never stride.
        norm: ``"bnorm"`` or ``None``.

    Example:
        >>> make_operation("conv_3x3", 8, 1, None).num_parameters
        576
    """
    return _FACTORIES[name](channels, stride, norm)
