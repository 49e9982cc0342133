"""Embeddings of a batch of graphs → the blocks that every parameter is tiled from, in few large products."""

from __future__ import annotations

import collections
import dataclasses
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..graph.arch_data import ArchData, ParamSpec
from ..nn.decoders import ConvDecoder, Group, Kernel, MLPDecoder, VectorDecoder
from ..nn.scaling import scale_bias, scale_gain, weight_scale
from ..nn.tiling import tile_

_PORTION = 1 << 26
"""Numbers that are decoded at a time (256 MiB in float32), so that memory stays small for any network."""

_CLASS_TOKEN_STD = 0.02

_DECODED = ("weight", "gain", "bias", "position")
_DECODED_FOR_CLASSES = ("weight", "bias")


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A parameter to decode: of which graph of the batch, from which node, and whether it ends the classifier."""

    graph: int
    node: int
    spec: ParamSpec
    classifier: bool


def targets(graph: ArchData) -> list[Target]:
    """Every parameter of a graph or batch, with the position of its node in the batch."""
    params = graph.params if graph.get("ptr") is not None else [graph.params]
    classifier = graph.classifier.tolist()
    found: list[Target] = []
    start = 0
    for position, nodes in enumerate(params):
        found += (
            Target(position, start + node, spec, classifier[start + node])
            for node, specs in enumerate(nodes)
            for spec in specs
        )
        start += len(nodes)
    return found


class ParameterDecoder(nn.Module):
    """Decodes all parameters of a batch of networks from the embeddings of their nodes.

    Nodes whose weights have the same kernel and number of channels (up to what is decoded directly) share one
    product; all vectors share another.

    Args:
        weight: Decoder of weights and positions.
        vector: Decoder of gains and biases.
        weight_norm: Whether to scale what is decoded; see :mod:`ghn_pyg.nn.scaling`.
    """

    def __init__(self, weight: ConvDecoder | MLPDecoder, vector: VectorDecoder, weight_norm: bool) -> None:
        super().__init__()
        self.weight = weight
        self.vector = vector
        self.weight_norm = weight_norm

    def forward(self, x: Tensor, wanted: Iterable[Target]) -> Iterator[tuple[Target, Tensor]]:
        """Yields each target with its block, in an order that suits the products.

        Raises:
            ValueError: If a parameter has a role that is not decoded. Nothing has been yielded then.
        """
        groups: dict[tuple[bool, str], list[Target]] = collections.defaultdict(list)
        for target in wanted:
            decoded = _DECODED_FOR_CLASSES if target.classifier else _DECODED
            if target.spec.role not in decoded:
                raise ValueError(
                    f"the graph gives {target.spec.name!r} the role {target.spec.role!r}"
                    f"{' in the classification layer' if target.classifier else ''}, expected {' or '.join(decoded)}"
                )
            groups[target.classifier, target.spec.role].append(target)
        yield from self.vectors(x, groups[False, "gain"] + groups[False, "bias"])
        yield from self.class_biases(x, groups[True, "bias"])
        yield from self.weights(x, groups[True, "weight"] + groups[False, "weight"] + groups[False, "position"])

    def vectors(self, x: Tensor, wanted: Sequence[Target]) -> Iterator[tuple[Target, Tensor]]:
        """Gains and biases."""
        if not wanted:
            return
        nodes = sorted({target.node for target in wanted})
        row = {node: position for position, node in enumerate(nodes)}
        gains, biases = self.vector(x[nodes]).unbind(1)
        if self.weight_norm:
            gains, biases = scale_gain(gains), scale_bias(biases)
        gain_rows, bias_rows = gains.unbind(), biases.unbind()
        for target in wanted:
            rows = gain_rows if target.spec.role == "gain" else bias_rows
            yield target, rows[row[target.node]] - target.spec.added if target.spec.added else rows[row[target.node]]

    def class_biases(self, x: Tensor, wanted: Sequence[Target]) -> Iterator[tuple[Target, Tensor]]:
        """Biases of classification layers."""
        if wanted:
            decoded = self.vector.classify(x[[target.node for target in wanted]])
            yield from zip(wanted, scale_bias(decoded) if self.weight_norm else decoded, strict=True)

    def weights(self, x: Tensor, wanted: Sequence[Target]) -> Iterator[tuple[Target, Tensor]]:
        """Weights and positions; those of one size form a group, and all groups share the products."""
        for some in self.portions(wanted):
            groups: dict[tuple[Kernel, int | None, int], list[Target]] = collections.defaultdict(list)
            for target in some:
                groups[self.size(target)].append(target)
            requests = [Group([target.node for target in same], *size) for size, same in groups.items()]
            for same, blocks in zip(groups.values(), self.weight(x, requests), strict=True):
                yield from zip(same, self.scaled(blocks, [target.spec for target in same]), strict=True)

    def size(self, target: Target) -> tuple[Kernel, int | None, int]:
        """Kernel, output channels (none for a classification layer) and input channels that are decoded."""
        out, into, *kernel = target.spec.node_shape()
        limit = self.weight.max_channels
        decoded = None if target.classifier and target.spec.role == "weight" else min(out, limit)
        return (kernel[0], kernel[1]), decoded, min(into, limit)

    def portions(self, wanted: Sequence[Target]) -> Iterator[list[Target]]:
        """Cuts the targets so that the blocks of each portion take no more than about 256 MiB."""
        portion: list[Target] = []
        numbers = 0
        for target in wanted:
            kernel, out, into = self.size(target)
            portion.append(target)
            numbers += math.prod(kernel) * into * (self.weight.max_channels if out is None else out)
            if numbers > _PORTION:
                yield portion
                portion, numbers = [], 0
        if portion:
            yield portion

    def scaled(self, blocks: Tensor, specs: Sequence[ParamSpec]) -> Tensor:
        """Blocks of shape (n, …), each scaled by the fan-in of its parameter; positions are not scaled."""
        if not self.weight_norm:
            return blocks
        factors = [weight_scale(fan_shape(spec)) if spec.role == "weight" else 1.0 for spec in specs]
        return blocks.mul_(blocks.new_tensor(factors).view(-1, 1, 1, 1, 1))


def fan_shape(spec: ParamSpec) -> tuple[int, ...]:
    """The shape of a weight with its output dimension first, as its fan-in counts."""
    if spec.axes:
        return spec.node_shape()[:2]
    shape = spec.shape[spec.stacked :]
    if spec.layout == "out_in":
        return shape
    return (shape[1] * spec.groups, shape[0] // spec.groups, *shape[2:])


def fill_(out: Tensor, spec: ParamSpec, block: Tensor, seed: int | None = None) -> Tensor:
    """Writes a parameter from its block.

    Args:
        out: The parameter's memory, of ``spec.shape``.
        spec: Which parameter it is.
        block: (C,) for vectors, (o, i, h, w) for weights, (1, i, h, w) for positions.
        seed: Seed of the rows of class tokens, for which the GHN has no prediction; they depend on it and on the
            parameter's name alone. By default they are drawn from PyTorch's global generator.

    Returns:
        ``out``.
    """
    if spec.role == "position":
        return _fill_positions_(out, spec, block, seed)
    if spec.axes:
        return _fill_joined_(out, spec, block)
    if spec.stacked:
        stack = out.flatten(0, spec.stacked - 1)
        fill_(stack[0], dataclasses.replace(spec, shape=spec.shape[spec.stacked :], stacked=0), block)
        stack[1:].copy_(stack[0].expand_as(stack[1:]))
        return out
    if spec.role != "weight":
        if out.dim() == 1:
            return tile_(out, block)
        # A gain for each place of a map: those of one channel are alike.
        channels = tile_(block.new_empty(out.size(0)), block) if out.dim() else block[0]
        return out.copy_(channels.view(-1, *[1] * (out.dim() - 1)) if out.dim() else channels)
    view = out.transpose(0, 1) if spec.layout == "in_out" else out
    if view.dim() == 5:  # a volume repeats its planes
        block = block.unsqueeze(2).expand(-1, -1, view.size(2), -1, -1)
    tile_(view, block.reshape(*block.shape[: view.dim()]) if view.dim() < 4 else block)
    return out


def _fill_joined_(out: Tensor, spec: ParamSpec, block: Tensor) -> Tensor:
    """Fills a weight or bias whose dimensions are joined first; all matrices of a stack are alike."""
    if spec.role == "bias":
        return out.copy_(tile_(block.new_empty(out.numel()), block).view(out.shape))
    order = sorted(range(out.dim()), key=lambda dim: "soi".index(spec.axes[dim]))
    matrix = tile_(block.new_empty(spec.along("o"), spec.along("i")), block.reshape(block.shape[:2]))
    view = out.permute(order)
    view.copy_(matrix.view(view.shape[spec.axes.count("s") :]))
    return out


def _fill_positions_(out: Tensor, spec: ParamSpec, block: Tensor, seed: int | None) -> Tensor:
    if spec.is_map:
        tile_(out, block)
        return out
    table = out.view(-1, out.size(-1))
    # Drawn on the CPU, so that a seed gives the same rows on every device.
    generator = None if seed is None else torch.Generator().manual_seed((seed + zlib.crc32(spec.name.encode())) % 2**63)
    tokens = torch.randn(spec.extra_rows, table.size(1), generator=generator, device="cpu") * _CLASS_TOKEN_STD
    table[: spec.extra_rows].copy_(tokens)
    tile_(table[spec.extra_rows :].t(), block[0].flatten(1))
    return out
