"""Random networks whose data flow is known: what a trace must find."""

import random

import torch
import torch.nn.functional as F
from torch import nn

TOKENS = 7
WIDTHS = (2, 3, 5, 11)


class RandomNetwork(nn.Module):
    """Layers, norms, attention, sums, concatenations, products and slices in random order, some layers shared.

    Values are (batch, tokens, channels). ``nodes`` has what is expected: the type of each node, its parameters and the
    nodes that it follows. ``program`` has the operations.
    """

    def __init__(self, seed, operations=17):
        super().__init__()
        self.random = random.Random(seed)
        self.layers = nn.ModuleList()
        self.nodes = [("input", (), frozenset())]
        self.program = []
        self.values = [(frozenset((0,)), 5)]  # the nodes that each value comes from, and its channels
        self.used = set()
        for _ in range(operations):
            self.random.choice((
                self.linear, self.linear, self.linear, self.shared, self.convolution, self.norm, self.norm,
                self.activation, self.slice, self.join, self.join, self.join, self.product, self.attention,
            ))()  # fmt: skip
        self.pool()

    # --- operations ---------------------------------------------------------------------------------------------------

    def pick(self, channels=None):
        """A value, one of the last more often."""
        known = [index for index, (_, width) in enumerate(self.values) if channels in (None, width)]
        return self.random.choice(known[-3:] if self.random.random() < 0.7 else known)

    def add(self, operation, operands, sources, channels):
        self.program.append((operation, operands))
        self.values.append((frozenset(sources), channels))

    def node(self, kind, params, sources):
        self.nodes.append((kind, params, frozenset(sources)))
        return frozenset((len(self.nodes) - 1,))

    def apply(self, layer, operand, channels, norm=None):
        """Adds the nodes of a layer, without parameters where it was used before."""
        first = layer not in self.used
        self.used.add(layer)
        module, path = self.layers[layer], f"layers.{layer}"
        if norm is not None:
            sources = self.node(norm, (f"{path}.weight", f"{path}.bias"), self.values[operand][0])
        else:
            sources = self.node("conv", (f"{path}.weight",) if first else (), self.values[operand][0])
            if module.bias is not None:
                sources = self.node("bias", (f"{path}.bias",) if first else (), sources)
        self.add(layer, (operand,), sources, channels)

    def linear(self):
        operand, channels = self.pick(), self.random.choice(WIDTHS)
        self.layers.append(nn.Linear(self.values[operand][1], channels, bias=self.random.random() < 0.6))
        self.apply(len(self.layers) - 1, operand, channels)

    def convolution(self):
        operand, channels = self.pick(), self.random.choice(WIDTHS)
        self.layers.append(nn.Conv1d(self.values[operand][1], channels, 3, padding=1, bias=self.random.random() < 0.5))
        self.apply(len(self.layers) - 1, operand, channels)

    def shared(self):
        old = [layer for layer in sorted(self.used) if isinstance(self.layers[layer], nn.Linear)]
        fitting = [layer for layer in old if any(self.layers[layer].in_features == width for _, width in self.values)]
        if fitting:
            layer = self.random.choice(fitting)
            self.apply(layer, self.pick(self.layers[layer].in_features), self.layers[layer].out_features)

    def norm(self):
        operand = self.pick()
        channels = self.values[operand][1]
        kind, layer = self.random.choice((("ln", nn.LayerNorm), ("bn", nn.BatchNorm1d)))
        self.layers.append(layer(channels))
        self.apply(len(self.layers) - 1, operand, channels, kind)

    def activation(self):
        operand = self.pick()
        self.add(self.random.choice((F.relu, F.gelu, torch.tanh, torch.clone)), (operand,), *self.values[operand])

    def slice(self):
        operand = self.pick()
        sources, channels = self.values[operand]
        if channels > 2:
            self.add(lambda x: x[..., 1:], (operand,), sources, channels - 1)

    def join(self):
        first = self.pick()
        if self.random.random() < 0.5:
            self.joined("sum", torch.add, first, self.pick(self.values[first][1]), self.values[first][1])
        else:
            second = self.pick()
            channels = self.values[first][1] + self.values[second][1]
            self.joined("concat", lambda x, y: torch.cat((x, y), -1), first, second, channels)

    def joined(self, kind, operation, first, second, channels):
        (one, _), (other, _) = self.values[first], self.values[second]
        sources = one if one == other else self.node(kind, (), one | other)
        self.add(operation, (first, second), sources, channels)

    def product(self):
        first = self.pick()
        second = self.pick(self.values[first][1])
        sources = self.values[first][0] | self.values[second][0]  # products are folded away
        self.add(torch.mul, (first, second), sources, self.values[first][1])

    def attention(self):
        query = self.pick()
        channels = self.values[query][1]
        operands = (query, self.pick(channels), self.pick(channels))
        sources = self.node("msa", (), frozenset().union(*(self.values[operand][0] for operand in operands)))
        by_hand = self.random.random() < 0.5
        self.add(attention if by_hand else F.scaled_dot_product_attention, operands, sources, channels)

    def pool(self):
        sources, channels = self.values[-1]
        self.layers.append(nn.Linear(channels, 13))
        self.nodes.append(("glob_avg", (), sources))
        self.program.append((lambda x: x.mean(1), (len(self.values) - 1,)))
        self.values.append((frozenset((len(self.nodes) - 1,)), channels))
        self.apply(len(self.layers) - 1, len(self.values) - 1, 13)

    # --- what it computes, and what is expected -----------------------------------------------------------------------

    def forward(self, x):
        values = [x]
        for operation, operands in self.program:
            given = [values[operand] for operand in operands]
            if not isinstance(operation, int):
                values.append(operation(*given))
            elif isinstance(layer := self.layers[operation], (nn.Conv1d, nn.BatchNorm1d)):
                values.append(layer(given[0].mT).mT)
            else:
                values.append(layer(*given))
        return values[-1]

    def expected(self):
        """The nodes and edges of the graph: without nodes that lead neither to the output nor to parameters."""
        needed = {len(self.nodes) - 1, 0} | {index for index, (_, params, _) in enumerate(self.nodes) if params}
        for index in range(len(self.nodes) - 1, 0, -1):
            if index in needed:
                needed |= self.nodes[index][2]
        place = {index: count for count, index in enumerate(sorted(needed))}
        nodes = [(kind, params) for index, (kind, params, _) in enumerate(self.nodes) if index in needed]
        edges = {(place[source], place[index]) for index in place for source in self.nodes[index][2]}
        return nodes, edges


def attention(query, key, value):
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1) @ value
