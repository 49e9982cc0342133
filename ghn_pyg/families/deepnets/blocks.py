"""Building blocks of networks: each builds its module and lists its graph nodes.

One description gives both, so the graph of an architecture is known before its network is built.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...graph.arch_data import NO_SHAPE, NodeShape, ParamSpec
from ...graph.node_types import PRIMITIVE_ID

INPUT: Final = -1
"""Stands for the block's input among the predecessors of its nodes."""

Param = tuple[str, tuple[int, ...], Literal["weight", "gain", "bias", "position"]]
"""Name, shape and role of a parameter: a :class:`~ghn_pyg.ParamSpec` whose name still lacks its prefix."""


class Node(NamedTuple):
    """A graph node of a block: names are suffixes of the block's, inputs are indices in the block or :data:`INPUT`."""

    type: int
    name: str
    params: tuple[Param, ...]
    shape: NodeShape
    inputs: tuple[int, ...]


cached: Final = functools.lru_cache(1 << 12)
"""Decorates functions that create blocks, so that equal blocks of all networks are one object."""


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A building block with one input and one output.

    Args:
        build: Creates its module.
        nodes: Its graph nodes in execution order; the last one is the output. A block without nodes is an identity in
            the graph.
    """

    build: Callable[[], nn.Module]
    nodes: tuple[Node, ...] = ()

    def module(self, meta: bool) -> nn.Module:
        """A new module; on the meta device a copy of a prototype, which takes a fifth of the time."""
        return copy_module(self._prototype) if meta else self.build()

    @functools.cached_property
    def _prototype(self) -> nn.Module:
        return self.build()

    @functools.cached_property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for node in self.nodes for _, shape, _ in node.params)


def append_block(nodes: list[Node], name: str, block: Block, source: int) -> int:
    """Appends the nodes of a block, with ``name`` as prefix and ``source`` as input; returns the output's index."""
    base = len(nodes)
    for node_type, suffix, params, shape, inputs in block.nodes:
        named = tuple([(name + param, size, role) for param, size, role in params])
        shifted = tuple([source if index == INPUT else base + index for index in inputs])
        nodes.append(Node(node_type, name + suffix, named, shape, shifted))
    return len(nodes) - 1 if block.nodes else source


def append_join(nodes: list[Node], node_type: str, name: str, sources: Iterable[int]) -> int:
    """Appends a sum or concatenation of distinct nodes and returns its index; a single node is returned as it is."""
    distinct = tuple(sorted(set(sources)))
    if len(distinct) == 1:
        return distinct[0]
    nodes.append(Node(PRIMITIVE_ID[node_type], name, (), NO_SHAPE, distinct))
    return len(nodes) - 1


_CONTAINERS: Final = tuple(name for name, value in nn.Module().__dict__.items() if isinstance(value, (dict, set)))


def copy_module(module: nn.Module) -> nn.Module:
    """Copies a module of this package on the meta device, with new parameters; it must have no buffers."""
    copy: nn.Module = object.__new__(type(module))
    state = copy.__dict__
    state.update(module.__dict__)
    for name in _CONTAINERS:  # parameters, modules and hooks
        state[name] = state[name].copy()
    for name, parameter in module._parameters.items():
        if parameter is not None:
            state["_parameters"][name] = nn.Parameter(parameter.to(torch.get_default_dtype()))
    for name, child in module._modules.items():
        if child is not None:
            state["_modules"][name] = copy_module(child)
    return copy


class Subsample(nn.Module):
    """Keeps every other position."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, ⌈H/2⌉, ⌈W/2⌉)."""
        return x[:, :, ::2, ::2]


class PositionalEmbedding(nn.Module):
    """Adds a learned vector to each of ``side`` × ``side`` positions."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, channels, side, side))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (B, C, side, side)."""
        return x + self.weight


def _node(node_type: str, *params: Param, inputs: tuple[int, ...] = (INPUT,)) -> Node:
    """A node with parameters, named after the first."""
    return Node(PRIMITIVE_ID[node_type], params[0][0], params, ParamSpec(*params[0]).node_shape(), inputs)


@cached
def convolution(
    in_channels: int, out_channels: int, kernel: int | tuple[int, int] = 1, stride: int | tuple[int, int] = 1,
    dilation: int = 1, groups: int = 1, padding: int | None = None,
) -> Block:  # fmt: skip
    """A convolution without bias; by default it is padded so that only the stride changes the size."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    same = (dilation * (height - 1) // 2, dilation * (width - 1) // 2)
    build = functools.partial(
        nn.Conv2d, in_channels, out_channels, (height, width), stride, same if padding is None else padding, dilation,
        groups, bias=False,
    )  # fmt: skip
    node_type = "conv" if groups == 1 else "dil_conv" if dilation > 1 else "sep_conv"
    shape = (out_channels, in_channels // groups, height, width)
    return Block(build, (_node(node_type, (".weight", shape, "weight")),))


@cached
def linear(in_features: int, out_features: int, bias: bool = True) -> Block:
    """A linear layer."""
    weight = _node("conv", (".weight", (out_features, in_features), "weight"))
    biases = (_node("bias", (".bias", (out_features,), "bias"), inputs=(0,)),) if bias else ()
    return Block(functools.partial(nn.Linear, in_features, out_features, bias), (weight, *biases))


@cached
def batch_norm(channels: int) -> Block:
    """A batch norm that always uses the statistics of the batch."""
    node = _node("bn", (".weight", (channels,), "gain"), (".bias", (channels,), "bias"))
    return Block(functools.partial(nn.BatchNorm2d, channels, track_running_stats=False), (node,))


@cached
def layer_norm(channels: int) -> Block:
    """A layer norm."""
    node = _node("ln", (".weight", (channels,), "gain"), (".bias", (channels,), "bias"))
    return Block(functools.partial(nn.LayerNorm, channels), (node,))


@cached
def pool(node_type: Literal["max_pool", "avg_pool"], stride: int) -> Block:
    """A 3×3 pool; averages do not count the padding."""
    average, maximum = functools.partial(nn.AvgPool2d, count_include_pad=False), nn.MaxPool2d
    build = functools.partial(average if node_type == "avg_pool" else maximum, 3, stride, 1)
    return Block(build, (Node(PRIMITIVE_ID[node_type], f":{node_type}", (), (1, 1, 3, 3), (INPUT,)),))


@cached
def global_average(side: int = 1) -> Block:
    """An adaptive average pool to ``side`` × ``side`` positions."""
    node = Node(PRIMITIVE_ID["glob_avg"], ":glob_avg", (), NO_SHAPE, (INPUT,))
    return Block(functools.partial(nn.AdaptiveAvgPool2d, side), (node,))


@cached
def positional_embedding(channels: int, side: int) -> Block:
    """A learned positional embedding and its sum with the input."""
    table = _node("pos_enc", (".weight", (1, channels, side, side), "position"), inputs=())
    total = Node(PRIMITIVE_ID["sum"], ":sum", (), NO_SHAPE, (INPUT, 0))
    return Block(functools.partial(PositionalEmbedding, channels, side), (table, total))


@cached
def sequential(*blocks: Block, name: str = "") -> Block:
    """Blocks in sequence, as :class:`torch.nn.Sequential`; ``name`` is its name in the enclosing module."""
    nodes: list[Node] = []
    last = INPUT
    for position, block in enumerate(blocks):
        last = append_block(nodes, f"{name}.{position}", block, last)
    return Block(lambda: nn.Sequential(*(block.build() for block in blocks)), tuple(nodes))


IDENTITY: Final = Block(nn.Identity)
RELU: Final = Block(nn.ReLU)
GELU: Final = Block(nn.GELU)
FLATTEN: Final = Block(nn.Flatten)
DROPOUT: Final = Block(nn.Dropout)
SUBSAMPLE: Final = Block(Subsample)
