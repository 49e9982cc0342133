"""Decodes embeddings of a batch of graphs into the blocks that parameters are tiled from, in few large products."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn

from ..graph.arch_data import ArchData, ParamSpec
from ..nn.decoders import ConvDecoder, Group, Kernel, MLPDecoder, VectorDecoder
from ..nn.scaling import scale_bias, scale_gain, weight_scale
from .config import GHNConfig

_CHUNK = 1 << 26
"""Numbers that are decoded at a time (256 MiB in float32), so that memory stays small for any network."""

_ROLES = ("weight", "gain", "bias", "position")
_CLASSIFIER_ROLES = ("weight", "bias")


@dataclasses.dataclass(frozen=True, slots=True)
class NodeParameter:
    """A parameter to decode: the graph in the batch, the node in the batch, and whether the node is the classifier."""

    graph: int
    node: int
    spec: ParamSpec
    classifier: bool


def node_parameters(graph: ArchData) -> list[NodeParameter]:
    """All parameters of a graph or batch, node by node."""
    params = graph.params if graph.get("ptr") is not None else [graph.params]
    classifier = graph.classifier.tolist()
    parameters: list[NodeParameter] = []
    start = 0
    for position, nodes in enumerate(params):
        parameters += (
            NodeParameter(position, start + node, spec, classifier[start + node])
            for node, specs in enumerate(nodes)
            for spec in specs
        )
        start += len(nodes)
    return parameters


class ParameterDecoder(nn.Module):
    """Decodes all parameters of a batch of networks from the embeddings of their nodes.

    Weights of the same kernel and channels (up to the number that is decoded directly) share one product; all vectors
    share another.

    Args:
        weight: Decoder of weights and positions.
        vector: Decoder of gains and biases.
        weight_norm: Whether to scale decoded tensors; see :mod:`ghn_pyg.nn.scaling`.

    Shapes:
        - **input:** embeddings :math:`(N, d)` and parameters of the nodes
        - **output:** pairs of a parameter and its block: :math:`(C,)` for vectors, :math:`(o, i, h, w)` for others
    """

    def __init__(self, weight: ConvDecoder | MLPDecoder, vector: VectorDecoder, weight_norm: bool) -> None:
        super().__init__()
        self.weight = weight
        self.vector = vector
        self.weight_norm = weight_norm

    def forward(self, x: Tensor, parameters: Iterable[NodeParameter]) -> Iterator[tuple[NodeParameter, Tensor]]:
        """Yields each parameter with its block, in an order that suits the products.

        Raises:
            ValueError: If a parameter has a role that is not decoded; before anything is yielded.
        """
        groups: dict[tuple[bool, str], list[NodeParameter]] = collections.defaultdict(list)
        for parameter in parameters:
            roles = _CLASSIFIER_ROLES if parameter.classifier else _ROLES
            if parameter.spec.role not in roles:
                raise ValueError(
                    f"the graph gives {parameter.spec.name!r} the role {parameter.spec.role!r}"
                    f"{' in the classification layer' if parameter.classifier else ''}, expected {' or '.join(roles)}"
                )
            groups[parameter.classifier, parameter.spec.role].append(parameter)
        yield from self._vectors(x, groups[False, "gain"] + groups[False, "bias"])
        yield from self._class_biases(x, groups[True, "bias"])
        yield from self._weights(x, groups[True, "weight"] + groups[False, "weight"] + groups[False, "position"])

    def _vectors(self, x: Tensor, parameters: Sequence[NodeParameter]) -> Iterator[tuple[NodeParameter, Tensor]]:
        if not parameters:
            return
        nodes = sorted({parameter.node for parameter in parameters})
        row = {node: index for index, node in enumerate(nodes)}
        gains, biases = self.vector(x[nodes]).unbind(1)
        if self.weight_norm:
            gains, biases = scale_gain(gains), scale_bias(biases)
        gain_rows, bias_rows = gains.unbind(), biases.unbind()
        for parameter in parameters:
            vector = (gain_rows if parameter.spec.role == "gain" else bias_rows)[row[parameter.node]]
            yield parameter, vector - parameter.spec.added if parameter.spec.added else vector

    def _class_biases(self, x: Tensor, parameters: Sequence[NodeParameter]) -> Iterator[tuple[NodeParameter, Tensor]]:
        if parameters:
            biases = self.vector.classify(x[[parameter.node for parameter in parameters]])
            yield from zip(parameters, scale_bias(biases) if self.weight_norm else biases, strict=True)

    def _weights(self, x: Tensor, parameters: Sequence[NodeParameter]) -> Iterator[tuple[NodeParameter, Tensor]]:
        """Weights and positions; those of one size form a group, and all groups of a chunk share the products."""
        for chunk in self.chunks(parameters):
            groups: dict[tuple[Kernel, int | None, int], list[NodeParameter]] = collections.defaultdict(list)
            for parameter in chunk:
                groups[self.block_size(parameter)].append(parameter)
            requests = [Group([parameter.node for parameter in same], *size) for size, same in groups.items()]
            for same, blocks in zip(groups.values(), self.weight(x, requests), strict=True):
                yield from zip(same, self._scaled(blocks, [parameter.spec for parameter in same]), strict=True)

    def block_size(self, parameter: NodeParameter) -> tuple[Kernel, int | None, int]:
        """Kernel, output channels (``None`` for a classification layer) and input channels to decode."""
        out, into, *kernel = parameter.spec.node_shape()
        limit = self.weight.max_channels
        whole = parameter.classifier and parameter.spec.role == "weight"
        return (kernel[0], kernel[1]), None if whole else min(out, limit), min(into, limit)

    def chunks(self, parameters: Iterable[NodeParameter]) -> Iterator[list[NodeParameter]]:
        """Splits parameters so that the blocks of each chunk take about 256 MiB at most."""
        chunk: list[NodeParameter] = []
        numbers = 0
        for parameter in parameters:
            kernel, out, into = self.block_size(parameter)
            chunk.append(parameter)
            numbers += math.prod(kernel) * into * (self.weight.max_channels if out is None else out)
            if numbers > _CHUNK:
                yield chunk
                chunk, numbers = [], 0
        if chunk:
            yield chunk

    def _scaled(self, blocks: Tensor, specs: Sequence[ParamSpec]) -> Tensor:
        """Scales blocks of shape (n, …) by the fan-in of their parameters; positions are not scaled."""
        if not self.weight_norm:
            return blocks
        factors = [weight_scale(fan_shape(spec)) if spec.role == "weight" else 1.0 for spec in specs]
        return blocks.mul_(blocks.new_tensor(factors).view(-1, 1, 1, 1, 1))


def build_decoder(config: GHNConfig) -> ParameterDecoder:
    """Builds the decoder of a configuration."""
    weight = (ConvDecoder if config.decoder == "conv" else MLPDecoder)(
        config.hidden_channels, config.max_channels, config.max_kernel_size, config.num_classes, config.kernel_crop
    )
    vector = VectorDecoder(config.hidden_channels, config.max_channels, config.num_classes)
    return ParameterDecoder(weight, vector, config.weight_norm)


def decoder_bytes(config: GHNConfig) -> int:
    """Memory of the largest layers of the decoder."""
    d, c, s, k = config.hidden_channels, config.max_channels, config.max_kernel_size, config.num_classes
    weight = 4 * (d * s) ** 2 + 8 * d * c**2 + k * c if config.decoder == "conv" else 2 * d * ((c * s) ** 2 + k * c)
    return 4 * (weight + 4 * d * c + k * c)


def fan_shape(spec: ParamSpec) -> tuple[int, ...]:
    """The shape of a weight with its output dimension first, from which its fan-in is computed."""
    if spec.axes:
        return spec.node_shape()[:2]
    shape = spec.shape[spec.stacked :]
    if spec.layout == "out_in":
        return shape
    return (shape[1] * spec.groups, shape[0] // spec.groups, *shape[2:])
