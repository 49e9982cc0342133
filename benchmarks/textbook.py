"""A textbook implementation as a baseline: the papers' formulas, not optimised.

:func:`trace` runs a real forward pass with hooks, walks PyTorch's autograd graph and computes shortest paths with
networkx. :class:`TextbookGHN` follows the formulas: features of N² pairs of nodes, the whole S × S map of every weight,
all C² channels at each kernel position, and a Python loop over the nodes. Both give the same results as the library on
torchvision's networks, which benchmarks and tests check.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import networkx as nx
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghn_pyg import GHN, ArchData, GHNConfig, ParamSpec
from ghn_pyg.models.checkpoints.published_keys import to_published

# --- network → graph -----------------------------------------------------------------------------------------------

_LAYERS: Final = {"ConvolutionBackward0": "conv", "AddmmBackward0": "conv", "MmBackward0": "conv"}
_NORMS: Final = {"NativeBatchNormBackward0": "bn", "NativeLayerNormBackward0": "ln"}
_OTHERS: Final = {
    "MaxPool2DWithIndicesBackward0": "max_pool",
    "AvgPool2DBackward0": "avg_pool",
    "MeanBackward1": "glob_avg",
    "SoftmaxBackward0": "msa",
    "SafeSoftmaxBackward0": "msa",
    "ScaledDotProductFlashAttentionForCpuBackward0": "msa",
}
_JOINS: Final = {"AddBackward0": "sum", "CatBackward0": "concat", "MulBackward0": "cse"}

Origin = tuple[frozenset[int], tuple[str, ...]]
"""The nodes that a value is computed from, and the parameters without a node."""


def trace(model: nn.Module, image: Tensor | None = None, cutoff: int = 50) -> tuple[nx.DiGraph, np.ndarray]:
    """The graph of an image network, with all activations of a real forward pass.

    Args:
        model: The network; it is put into evaluation mode and back.
        image: Its input; a random one of 1×3×224×224 by default.
        cutoff: Largest distance that is kept.

    Returns:
        The graph, whose nodes have a ``type``, a ``name`` and ``params``, and its distances of shape (N, N).
    """
    image = torch.randn(1, 3, 224, 224) if image is None else image.clone()
    image.requires_grad_()
    modes = {module: module.training for module in model.modules()}
    produced: dict[Any, str] = {}
    outputs: list[Tensor] = []  # kept alive, as their autograd functions are keys

    def hook(name: str) -> Any:
        def remember(module: nn.Module, inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            outputs.append(output)
            produced.setdefault(output.grad_fn, name)

        return remember

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves]
    try:
        output = model.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    graph = _walk(output.grad_fn, image, dict(model.named_parameters()), produced)
    graph.remove_nodes_from([node for node, kind in graph.nodes(data="type") if kind == "folded"])
    order = {node: position for position, node in enumerate(nx.lexicographical_topological_sort(graph))}
    graph = nx.relabel_nodes(graph, order)
    return graph, _all_pairs(graph, cutoff)


def _walk(root: Any, image: Tensor, parameters: dict[str, nn.Parameter], produced: dict[Any, str]) -> nx.DiGraph:
    """Turns the operations of an autograd graph into nodes, inputs before their users."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    graph = nx.DiGraph()
    graph.add_node(0, type="input", name="input", params=[])
    origins: dict[Any, Origin] = {None: (frozenset(), ())}

    def add(kind: str, sources: frozenset[int], name: str, params: tuple[str, ...] = ()) -> frozenset[int]:
        node = graph.number_of_nodes()
        graph.add_node(node, type=kind, name=name, params=list(params))
        graph.add_edges_from((source, node) for source in sources)
        return frozenset((node,))

    for function in _operands_first(root):
        if hasattr(function, "variable"):
            leaf = id(function.variable)
            origins[function] = (frozenset((0,)), ()) if leaf == id(image) else (frozenset(), (names[leaf],))
            continue
        operands = [origins[operand] for operand, _ in function.next_functions]
        sources = frozenset().union(*(nodes for nodes, _ in operands))
        params = tuple(name for _, names in operands for name in names)
        kind, name = function.name(), produced.get(function, "")
        if kind in _LAYERS and params:
            for parameter in sorted(params, key=lambda name: -parameters[name].dim()):
                layer = _layer_kind(function) if parameters[parameter].dim() > 1 else "bias"
                sources = add(layer, sources, parameter, (parameter,))
            params = ()
        elif kind in _NORMS and params:
            sources, params = add(_NORMS[kind], sources, params[0], params), ()
        elif kind in _OTHERS:
            sources = add(_OTHERS[kind], sources, name or _OTHERS[kind])
        elif kind == "AddBackward0" and params and parameters[params[0]].dim() == 3:
            table = add("pos_enc", frozenset(), params[0], params)
            sources, params = add("sum", sources | table, name or "sum"), ()
        elif kind in _JOINS:
            joined = {nodes for nodes, _ in operands if nodes}
            if len(joined) > 1:
                if kind == "MulBackward0":
                    sources = _without_squeeze(graph, joined)
                sources = add(_JOINS[kind], sources, name or _JOINS[kind])
            params = ()
        origins[function] = (sources, params)
    return graph


def _operands_first(root: Any) -> Iterator[Any]:
    """Operations of an autograd graph in topological order."""
    seen, stack = set(), [(root, False)]
    while stack:
        function, ready = stack.pop()
        if ready:
            yield function
        elif function is not None and function not in seen:
            seen.add(function)
            stack.append((function, True))
            stack.extend((operand, False) for operand, _ in reversed(function.next_functions))


def _layer_kind(function: Any) -> str:
    if not hasattr(function, "_saved_groups") or function._saved_groups == 1:
        return "conv"
    return "dil_conv" if min(function._saved_dilation) > 1 else "sep_conv"


def _without_squeeze(graph: nx.DiGraph, joined: set[frozenset[int]]) -> frozenset[int]:
    """Folds the pooling of a squeeze-and-excitation gate into the product; returns its operands."""
    value = min(joined, key=max)
    for source in value:
        for user in list(graph.successors(source)):
            if graph.nodes[user]["type"] == "glob_avg":
                graph.add_edges_from((source, after) for after in graph.successors(user))
                # Removed at the end, as node numbers are taken from the number of nodes.
                graph.remove_edges_from([*graph.in_edges(user), *graph.out_edges(user)])
                graph.nodes[user]["type"] = "folded"
    return frozenset().union(*joined)


def _all_pairs(graph: nx.DiGraph, cutoff: int) -> np.ndarray:
    matrix = np.zeros((graph.number_of_nodes(),) * 2, dtype=np.int64)
    for source, lengths in nx.all_pairs_shortest_path_length(graph, cutoff=cutoff):
        for target, length in lengths.items():
            matrix[source, target] = length
    return matrix


# --- graph → parameters --------------------------------------------------------------------------------------------


def nearest(table: list[int], value: int) -> int:
    """The row of the entry nearest to a value, the smaller one of two."""
    return min(range(len(table)), key=lambda row: (abs(table[row] - value), table[row]))


def tiled(block: Tensor, out: int, into: int) -> Tensor:
    """Repeats a block of shape (o, i, …) along its first two dimensions and crops it."""
    block = block[: min(out, block.size(0)), : min(into, block.size(1))]
    repeats = (math.ceil(out / block.size(0)), math.ceil(into / block.size(1)), *(1,) * (block.dim() - 2))
    return block.repeat(repeats)[:out, :into]


class TextbookGHN:
    """GHN-3 or GHN-2 with the convolutional decoder, for weights as convolutions and linear layers have them.

    Args:
        config: Its configuration.
        state: Its weights by their published names.
    """

    def __init__(self, config: GHNConfig, state: dict[str, Tensor]) -> None:
        self.config = config
        self.state = state

    @classmethod
    def of(cls, ghn: GHN) -> TextbookGHN:
        """The same GHN; it shares the weights."""
        return cls(ghn.config, to_published(ghn.state_dict(), ghn.config))

    def memory(self, graph: ArchData) -> float:
        """An estimate of its memory in bytes: the features of all pairs, and the largest block."""
        config = self.config
        longest = max((max(shape[2:]) for shape in graph.node_shape.tolist()), default=1)
        numbers = 3 * config.hidden_channels + 4 * config.heads + 8
        block = 3 * min(longest, config.max_kernel_size) ** 2 * config.max_channels**2
        return 4.0 * (graph.num_nodes**2 * numbers + block)

    def linear(self, name: str, x: Tensor) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.linear(x, weight.flatten(1), self.state.get(f"{name}.bias"))

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def embed(self, graph: ArchData) -> Tensor:
        """Embeddings of shape (N, d)."""
        distance = graph.distances()
        x = self.state["embed.weight"][graph.node_type] + self.shapes(graph)
        x = self.graphormer(x, distance) if self.config.encoder == "ghn3" else self.gated(x, distance)
        return self.norm("ln", x) if self.config.final_norm else x

    def shapes(self, graph: ArchData) -> Tensor:
        """Shape encodings of shape (N, d), node by node."""
        channels = sorted({1, 3, self.config.num_classes, *range(8, 57, 8), *range(64, 4081, 16)})
        channels = sorted({*channels, *range(4096, 8193, 32)})
        kernels = sorted({*range(1, max(12, self.config.max_kernel_size), 2), 14, 16})
        rows = []
        for shape in graph.node_shape.tolist():
            if not any(shape):
                indices = [len(channels)] * 2 + [len(kernels)] * 2
            else:
                indices = [nearest(channels, 8 if 4 <= size <= 7 else size) for size in shape[:2]]
                indices += [nearest(kernels, 3 if size == 2 else size) for size in shape[2:]]
            tables = ["shape_enc.embed_channel.weight"] * 2 + ["shape_enc.embed_spatial.weight"] * 2
            rows.append(torch.cat([self.state[name][row] for name, row in zip(tables, indices, strict=True)]))
        return torch.stack(rows)

    def graphormer(self, x: Tensor, distance: Tensor) -> Tensor:
        """GHN-3's encoder, with 2d numbers for each pair of nodes and all scores of all heads."""
        state, heads = self.state, self.config.heads
        edges = distance == 1
        x = x + state["gnn.0.centrality_embed_in.weight"][edges.sum(0).clamp(max=100)]
        x = x + state["gnn.0.centrality_embed_out.weight"][edges.sum(1).clamp(max=100)]
        x = x + state["gnn.0.input_dist_embed.weight"][distance[0].clamp(max=1000)]
        pairs = state["gnn.0.attn.edge_embed.embed.weight"][torch.stack((distance, distance.t()), dim=2) + 2].flatten(2)
        bias = self.linear("gnn.0.attn.proj_e.2", self.linear("gnn.0.attn.proj_e.0", pairs).relu()).permute(2, 0, 1)
        del pairs
        for layer in range(self.config.layers):
            name = f"gnn.{layer}"
            qkv = self.linear(f"{name}.attn.to_qkv", self.norm(f"{name}.ln1", x))
            q, k, v = qkv.view(len(x), 3, heads, -1).permute(1, 2, 0, 3)
            scores = q @ k.transpose(1, 2) * q.size(-1) ** -0.5 + bias
            attended = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
            x = x + self.linear(f"{name}.attn.to_out.0", attended)
            hidden = F.gelu(self.linear(f"{name}.ff.net.0", self.norm(f"{name}.ln2", x)))
            x = x + self.linear(f"{name}.ff.net.3", hidden)
        return x

    def gated(self, x: Tensor, distance: Tensor) -> Tensor:
        """GHN-2's encoder, node by node, forward and backward."""
        x = x.clone()
        for matrix, order in ((distance, range(len(x))), (distance.t(), reversed(range(len(x))))):
            for node in order:
                lengths = matrix[:, node]
                near, far = (lengths == 1).nonzero().flatten(), lengths.nonzero().flatten()
                message = self.message("gnn.mlp", x[near]).sum(0)
                message = message + (self.message("gnn.mlp_ve", x[far]) / lengths[far, None]).sum(0)
                x[node] = self.gru(message, x[node])
        return x

    def message(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.fc.2", self.linear(f"{name}.fc.0", x).relu()).relu()

    def gru(self, message: Tensor, state: Tensor) -> Tensor:
        weights = [self.state[f"gnn.gru.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        return torch.gru_cell(message[None], state[None], *weights)[0]

    def weight(self, x: Tensor, kernel: tuple[int, int], classifier: bool) -> Tensor:
        """A block of shape (C, C, h, w), or (K, C, 1, 1) for a classification layer."""
        d, size, channels = self.config.hidden_channels, self.config.max_kernel_size, self.config.max_channels
        maps = self.linear("decoder.fc.0", x).relu().view(4 * d, size, size)
        rows, columns = (self.window(length) for length in kernel)
        positions = maps[:, rows, columns].permute(1, 2, 0)
        hidden = self.linear("decoder.conv.0", positions).relu()
        block = self.linear("decoder.conv.2", hidden).unflatten(2, (channels, channels)).permute(2, 3, 0, 1)
        if classifier:
            by_out = block.relu().transpose(0, 3)
            return self.linear("decoder.class_layer_predictor.1", by_out).transpose(0, 3)
        if block.shape[2:] != kernel:
            block = F.interpolate(block, size=kernel, mode="bilinear", align_corners=False)
        return block

    def window(self, length: int) -> slice:
        """The rows or columns of the S × S map for a kernel."""
        size = self.config.max_kernel_size
        if self.config.kernel_crop == "corner":
            return slice(0, length)
        return slice(max(0, size // 2 - length // 2), size // 2 + math.ceil(length / 2))

    def vector(self, x: Tensor, spec: ParamSpec, classifier: bool) -> Tensor:
        both = self.linear("decoder_1d.fc.2", self.linear("decoder_1d.fc.0", x).relu()).view(2, -1)
        both = self.linear("bias_class.1", both.relu()) if classifier else both
        values = tiled(both[0 if spec.role == "gain" else 1][:, None], spec.shape[0], 1)[:, 0]
        return 2 * torch.sigmoid(0.5 * values) if spec.role == "gain" else torch.tanh(0.2 * values)

    def parameter(self, x: Tensor, spec: ParamSpec, classifier: bool) -> Tensor:
        """One parameter from its node's embedding."""
        if spec.role in ("gain", "bias"):
            return self.vector(x, spec, classifier)
        out, into, *kernel = spec.node_shape()
        values = tiled(self.weight(x, (kernel[0], kernel[1]), classifier and spec.role == "weight"), out, into)
        if spec.role == "position":
            tokens = torch.randn(spec.extra_rows, into) * 0.02
            return torch.cat((tokens, values[0].flatten(1).t())).view(spec.shape)
        fan_in = math.prod(spec.shape[1:])
        beta = 1 if len(spec.shape) == 4 and (into == 1 or kernel[0] < kernel[1]) else 2
        return values.reshape(spec.shape) * math.sqrt(beta / fan_in)

    @torch.no_grad()
    def predict(self, graph: ArchData) -> dict[str, Tensor]:
        """All parameters by name, node by node."""
        x = self.embed(graph)
        return {
            spec.name: self.parameter(x[node], spec, bool(graph.classifier[node]))
            for node, specs in enumerate(graph.params)
            for spec in specs
        }
