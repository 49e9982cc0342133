"""Parts that networks are put together from: how each is built, and the nodes that it is in the graph.

Both come from one description, so that the graph of an architecture is known before its network is built.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...graph.arch_data import NO_SHAPE, NodeShape, ParamSpec
from ...graph.node_types import PRIMITIVE_ID

INPUT: Final = -1
"""Stands for what enters a part, among the inputs of its nodes."""


Role = Literal["weight", "gain", "bias", "position"]
Param = tuple[str, tuple[int, ...], Role]
"""Name, shape and role of a parameter: :class:`~ghn_pyg.ParamSpec` before its name is complete."""


class Node(NamedTuple):
    """A node of a part's graph.

    Args:
        kind: Node type, a position in :data:`~ghn_pyg.PRIMITIVES`.
        name: Its name, to be appended to the part's.
        params: Parameters that are decoded from it, named likewise.
        shape: Shape that its encoding sees.
        inputs: Positions of its predecessors in the part; :data:`INPUT` for what enters the part.
    """

    kind: int
    name: str
    params: tuple[Param, ...]
    shape: NodeShape
    inputs: tuple[int, ...]


Nodes = tuple[Node, ...]

cached: Final = functools.lru_cache(1 << 12)
"""Makes one object of equal parts, of which a process keeps the last few thousand for all networks."""


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A part of a network with one input and one output.

    Args:
        build: Makes its module.
        nodes: What it is in the graph, in the order in which the module computes them; the last gives the output. A
            part without nodes passes on its input.
    """

    build: Callable[[], nn.Module]
    nodes: Nodes = ()

    def module(self, meta: bool) -> nn.Module:
        """A new module; on the meta device a copy of one that is kept, which takes a fifth of the time."""
        return duplicate(self._prototype) if meta else self.build()

    @functools.cached_property
    def _prototype(self) -> nn.Module:
        return self.build()

    @functools.cached_property
    def size(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for node in self.nodes for _, shape, _ in node.params)


def extend(nodes: list[Node], name: str, part: Part, source: int) -> int:
    """Appends a part's nodes.

    Args:
        nodes: The list to append to.
        name: The part's name in what the list describes, such as ``".op"``.
        part: The part.
        source: Position of the node that enters it.

    Returns:
        Position of the node that gives its output.
    """
    base = len(nodes)
    for kind, own, params, shape, inputs in part.nodes:
        renamed = tuple([(name + short, size, role) for short, size, role in params])
        places = tuple([source if place == INPUT else base + place for place in inputs])
        nodes.append(Node(kind, name + own, renamed, shape, places))
    return len(nodes) - 1 if part.nodes else source


def join(nodes: list[Node], kind: str, name: str, sources: Iterable[int]) -> int:
    """Appends a sum or concatenation of different nodes; one of a single node is that node."""
    distinct = tuple(sorted(set(sources)))
    if len(distinct) == 1:
        return distinct[0]
    nodes.append(Node(PRIMITIVE_ID[kind], name, (), NO_SHAPE, distinct))
    return len(nodes) - 1


_CONTAINERS: Final = tuple(name for name, value in nn.Module().__dict__.items() if isinstance(value, (dict, set)))


def duplicate(module: nn.Module) -> nn.Module:
    """A copy of a module of this package on the meta device; new parameters, which have no memory, and no buffers."""
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
            state["_modules"][name] = duplicate(child)
    return copy


# --- modules --------------------------------------------------------------------------------------------------------


class _Initialised:
    """Layers that skip the initialisation on the meta device, where there is nothing to initialise."""

    weight: Any

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()  # type: ignore[misc]


class Conv2d(_Initialised, nn.Conv2d):
    """A convolution."""


class Linear(_Initialised, nn.Linear):
    """A linear layer."""


class BatchNorm2d(_Initialised, nn.BatchNorm2d):
    """A batch norm."""


class LayerNorm(_Initialised, nn.LayerNorm):
    """A layer norm."""


class Subsample(nn.Module):
    """Every other position."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, ⌈H/2⌉, ⌈W/2⌉)."""
        return x[:, :, ::2, ::2]


class PositionalEmbedding(nn.Module):
    """Adds a learned vector to each position.

    Args:
        channels: Number of channels C.
        side: Number of positions in each direction.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, channels, side, side))
        if not self.weight.is_meta:
            nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (B, C, side, side)."""
        return x + self.weight


# --- parts of one layer ---------------------------------------------------------------------------------------------


def _node(kind: str, params: tuple[Param, ...], inputs: tuple[int, ...] = (INPUT,)) -> Node:
    """A node with parameters, named after the first."""
    return Node(PRIMITIVE_ID[kind], params[0][0], params, ParamSpec(*params[0]).node_shape(), inputs)


def _norm(kind: str, channels: int) -> Node:
    return _node(kind, ((".weight", (channels,), "gain"), (".bias", (channels,), "bias")))


@cached
def convolution(
    into: int, out: int, kernel: int | tuple[int, int] = 1, stride: int | tuple[int, int] = 1, dilation: int = 1,
    groups: int = 1, padding: int | None = None,
) -> Part:  # fmt: skip
    """A convolution without bias; padded by default so that only its stride changes the size."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    same = (dilation * (height - 1) // 2, dilation * (width - 1) // 2)
    build = functools.partial(
        Conv2d, into, out, (height, width), stride, same if padding is None else padding, dilation, groups, bias=False
    )
    kind = "conv" if groups == 1 else "dil_conv" if dilation > 1 else "sep_conv"
    return Part(build, (_node(kind, ((".weight", (out, into // groups, height, width), "weight"),)),))


@cached
def linear(into: int, out: int, bias: bool = True) -> Part:
    """A linear layer."""
    weight = _node("conv", ((".weight", (out, into), "weight"),))
    biases = (_node("bias", ((".bias", (out,), "bias"),), inputs=(0,)),) if bias else ()
    return Part(functools.partial(Linear, into, out, bias), (weight, *biases))


@cached
def batch_norm(channels: int) -> Part:
    """A batch norm that always uses the statistics of the batch."""
    build = functools.partial(BatchNorm2d, channels, track_running_stats=False)
    return Part(build, (_norm("bn", channels),))


@cached
def layer_norm(channels: int) -> Part:
    """A layer norm."""
    return Part(functools.partial(LayerNorm, channels), (_norm("ln", channels),))


@cached
def pool(kind: Literal["max_pool", "avg_pool"], stride: int) -> Part:
    """A 3×3 pool; averages do not count the padding."""
    options: dict[str, Any] = {"count_include_pad": False} if kind == "avg_pool" else {}
    cls = nn.AvgPool2d if kind == "avg_pool" else nn.MaxPool2d
    build = functools.partial(cls, 3, stride, 1, **options)
    return Part(build, (Node(PRIMITIVE_ID[kind], f":{kind}", (), (1, 1, 3, 3), (INPUT,)),))


@cached
def average(side: int = 1) -> Part:
    """An average over all positions, or over those of each of ``side`` × ``side`` regions."""
    node = Node(PRIMITIVE_ID["glob_avg"], ":glob_avg", (), NO_SHAPE, (INPUT,))
    return Part(functools.partial(nn.AdaptiveAvgPool2d, side), (node,))


@cached
def positions(channels: int, side: int) -> Part:
    """A positional embedding: pos_enc → sum ← what enters."""
    table = _node("pos_enc", ((".weight", (1, channels, side, side), "position"),), inputs=())
    total = Node(PRIMITIVE_ID["sum"], ":sum", (), NO_SHAPE, (INPUT, 0))
    return Part(functools.partial(PositionalEmbedding, channels, side), (table, total))


@cached
def chain(*parts: Part, name: str = "") -> Part:
    """Parts one after another, as :class:`torch.nn.Sequential`; ``name`` is that of the chain in its module."""
    nodes: list[Node] = []
    last = INPUT
    for position, part in enumerate(parts):
        last = extend(nodes, f"{name}.{position}", part, last)
    return Part(lambda: nn.Sequential(*(part.build() for part in parts)), tuple(nodes))


IDENTITY: Final = Part(nn.Identity)
RELU: Final = Part(nn.ReLU)
GELU: Final = Part(nn.GELU)
FLATTEN: Final = Part(nn.Flatten)
DROPOUT: Final = Part(nn.Dropout)
SUBSAMPLE: Final = Part(Subsample)
