import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module
from tests.golden import labelled
from tests.tracing.helpers import edges, kinds, network, sources

MAP = torch.rand(2, 3, 11, 13)
TOKENS = torch.rand(2, 7, 5)


def conv(into=5, out=5):
    return nn.Conv2d(into, out, 1, bias=False)


def linear(into=5, out=5):
    return nn.Linear(into, out, bias=False)


def gated(gate, x=MAP, **members):
    """The graph of a first layer, ``gate`` of its result, and a last layer."""
    members = {"first": conv(3), "down": conv(5, 2), "up": conv(2, 5), "last": conv(5, 7)} | members
    return from_module(network(lambda self, x: self.last(gate(self, self.first(x))), **members), x)


# --- squeeze-and-excitation gates ------------------------------------------------------------------------------------

GATES = {
    "value first": lambda self, x: x * excite(self, F.adaptive_avg_pool2d(x, 1)),
    "gate first": lambda self, x: excite(self, F.adaptive_avg_pool2d(x, 1)) * x,
    "mean": lambda self, x: x * excite(self, x.mean((2, 3), keepdim=True)),
    "mean of channels last": lambda self, x: x * excite(self, x.permute(0, 2, 3, 1).mean((1, 2))[:, :, None, None]),
    "torch.mul": lambda self, x: torch.mul(x, excite(self, x.mean((2, 3), keepdim=True))),
    "expanded": lambda self, x: x * excite(self, x.mean((2, 3), keepdim=True)).expand_as(x),
    "in place": lambda self, x: x.mul_(excite(self, x.mean((2, 3), keepdim=True))),
    "twice the sigmoid": lambda self, x: x * (2 * excite(self, x.mean((2, 3), keepdim=True))),
    "one dimension after the other": lambda self, x: x * excite(self, x.mean(3, keepdim=True).mean(2, keepdim=True)),
    "flattened": lambda self, x: x * excite(self, x.flatten(2).mean(2)[..., None, None]),
    "a pool of the whole map": lambda self, x: x * excite(self, F.avg_pool2d(x, x.shape[2:])),
    "through an activation": lambda self, x: F.relu(x) * excite(self, F.relu(x).mean((2, 3), keepdim=True)),
    "linear layers": lambda self, x: (
        x
        * F.linear(F.linear(x.mean((2, 3)), self.down.weight[:, :, 0, 0]), self.up.weight[:, :, 0, 0])[..., None, None]
    ),
}


def excite(self, squeezed):
    return torch.sigmoid(self.up(F.relu(self.down(squeezed))))


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_a_gate_is_a_node_and_its_squeeze_is_folded(gate):
    graph = gated(gate)
    assert kinds(graph) == ["input", "conv", "conv", "conv", "cse", "conv"]
    assert sources(graph) == {
        "input": [],
        "first.weight": ["input"],
        "down.weight": ["first.weight"],
        "up.weight": ["down.weight"],
        "cse": ["first.weight", "up.weight"],
        "last.weight": ["cse"],
    }


def test_a_gate_on_a_sum():
    def gate(self, x):
        x = x + self.side(x)
        return x * excite(self, x.mean((2, 3), keepdim=True))

    graph = gated(gate, side=conv())
    assert kinds(graph) == ["input", "conv", "conv", "sum", "conv", "conv", "cse", "conv"]
    assert sources(graph)["cse"] == ["sum", "up.weight"]


@pytest.mark.parametrize(
    "gate",
    [
        lambda self, x: x * self.up(self.down(x)).sigmoid(),
        lambda self, x: x * self.up(F.max_pool2d(self.down(x), (11, 13))).sigmoid(),
        lambda self, x: x * self.up(F.avg_pool2d(self.down(x), 3, 1, 1)).sigmoid(),
        lambda self, x: x * self.up(self.down(x.mean(1, keepdim=True).expand_as(x))).sigmoid(),
    ],
    ids=["no squeeze", "maximum", "a small pool", "mean of channels"],
)
def test_other_products_are_no_gates(gate):
    assert "cse" not in kinds(gated(gate))


def test_a_mean_of_another_value_is_no_squeeze():
    graph = gated(lambda self, x: self.other(x) * excite(self, x.mean((2, 3), keepdim=True)), other=conv())
    assert kinds(graph) == ["input", "conv", "conv", "glob_avg", "conv", "conv", "conv"]


def test_an_average_is_folded_where_it_centres_its_own_input():
    graph = gated(lambda self, x: x - x.mean((2, 3), keepdim=True))
    assert kinds(graph) == ["input", "conv", "conv"]


def test_the_global_average_after_gates_stays():
    graph = gated(
        lambda self, x: (x * excite(self, x.mean((2, 3), keepdim=True))).mean((2, 3), keepdim=True),
    )
    assert kinds(graph) == ["input", "conv", "conv", "conv", "cse", "glob_avg", "conv"]


# --- heads -----------------------------------------------------------------------------------------------------------


def named(graph):
    return [graph.node_names[node] for node in graph.classifier.nonzero().flatten().tolist()]


def test_a_head_that_pools_last_pools_before_its_layer():
    graph = from_module(
        nn.Sequential(
            nn.Conv2d(3, 5, 1), nn.Dropout(), nn.Conv2d(5, 7, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        MAP,
    )
    assert kinds(graph) == ["input", "conv", "bias", "glob_avg", "conv", "bias"]
    assert edges(graph) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert named(graph) == ["2.weight", "2.bias"]


def test_a_pool_that_has_other_users_stays():
    def forward(self, x):
        out = self.b(self.a(x)).mean((2, 3))
        return out, self.c(out)

    graph = from_module(network(forward, a=conv(3, 5), b=conv(5, 7), c=linear(7, 2)), MAP)
    assert sources(graph)["c.weight"] == ["glob_avg"]
    assert sources(graph)["glob_avg"] == ["b.weight"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.Linear(5, 7), nn.Linear(7, 2)], ["1.weight", "1.bias"]),
        ([nn.Linear(5, 7), nn.Linear(7, 2, bias=False)], ["1.weight"]),
        ([nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2), nn.LogSoftmax(-1)], ["2.weight", "2.bias"]),
        ([nn.Linear(5, 7), nn.LayerNorm(7)], []),
        ([nn.Embedding(11, 5)], []),
        ([nn.Linear(5, 7), nn.Sequential(nn.Dropout(), nn.Linear(7, 2))], ["1.1.weight", "1.1.bias"]),
    ],
)
def test_the_classification_layer_is_the_last_layer(layers, expected):
    x = torch.tensor([[3, 1]]) if isinstance(layers[0], nn.Embedding) else TOKENS
    assert named(from_module(nn.Sequential(*layers), x)) == expected


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.a(self.b(self.a(x))),
        lambda self, x: F.linear(self.b(self.a(x)), self.a.weight),
        lambda self, x: F.linear(self.b(self.a(x)), self.a.weight.t()),
        lambda self, x: self.b(self.a(x)) @ self.a.weight,
    ],
    ids=["shared layer", "shared weight", "tied weight", "tied product"],
)
def test_no_other_layer_stands_for_an_output_layer_that_is_decoded_elsewhere(forward):
    graph = from_module(network(forward, a=linear(), b=linear()), TOKENS)
    assert kinds(graph) == ["input", "conv", "conv", "conv"]
    assert "b.weight" not in named(graph)


@pytest.mark.parametrize("norm", [nn.LayerNorm(5), nn.Identity()])
def test_no_other_layer_stands_for_a_tied_head(norm):
    def forward(self, ids):
        return self.head(self.norm(self.block(self.table(ids))))

    net = network(forward, table=nn.Embedding(11, 5), block=linear(), norm=norm, head=linear(5, 11))
    net.head.weight = net.table.weight
    graph = from_module(net, torch.tensor([[3, 1, 4]]))
    assert kinds(graph) == ["input", "pos_enc", "conv", *(["ln"] if list(norm.parameters()) else []), "conv"]
    assert "block.weight" not in named(graph)
    assert graph.tied == {"head.weight": "table.weight"}


# --- folding, pruning and order --------------------------------------------------------------------------------------


def test_a_chain_of_concatenations_keeps_each_that_joins():
    def forward(self, x):
        a = self.a(x)
        b = torch.cat([a, self.b(a)], 2)
        return self.c(torch.cat([b, b], 2))

    graph = from_module(network(forward, a=linear(), b=linear(), c=linear(20, 2)), TOKENS)
    assert kinds(graph) == ["input", "conv", "conv", "concat", "conv"]


def test_weights_without_predecessor_follow_the_input():
    forward = lambda self, x: self.b(self.a(torch.ones(2, 1, 5))) + self.c(x)  # noqa: E731
    graph = from_module(network(forward, a=linear(), b=linear(), c=linear()), TOKENS)
    assert sources(graph)["a.weight"] == sources(graph)["c.weight"] == ["input"]


def test_a_sum_of_three_is_two_sums():
    def forward(self, x):
        return self.d(self.a(x) + self.b(x) + self.c(x))

    graph = from_module(network(forward, a=linear(), b=linear(), c=linear(), d=linear(5, 2)), TOKENS)
    assert kinds(graph) == ["input", "conv", "conv", "sum", "conv", "sum", "conv"]
    assert sources(graph)["sum#2"] == ["sum", "c.weight"]


def test_operations_that_lead_nowhere_are_pruned():
    def forward(self, x):
        x = self.a(x)
        F.max_pool1d(x + self.b(x), 3)
        (x + 1).mean(1)
        return self.c(x)

    graph = from_module(network(forward, a=linear(), b=linear(), c=linear(5, 2)), TOKENS)
    assert graph.node_names == ["input", "a.weight", "b.weight", "c.weight"]
    assert edges(graph) == [(0, 1), (1, 2), (1, 3)]


def attention(fused):
    def forward(self, x):
        for block in self.blocks:
            q, k, v = block["qkv"](block["norm"](x)).unflatten(2, (3, 1, 6)).permute(2, 0, 3, 1, 4).unbind()
            if fused:
                values = F.scaled_dot_product_attention(q, k, v)
            else:
                values = (q @ k.transpose(-2, -1) / 6**0.5).softmax(dim=-1) @ v
            x = x + block["out"](values.transpose(1, 2).flatten(2))
        return self.head(x.mean(1))

    def block():
        return nn.ModuleDict({"norm": nn.LayerNorm(6), "qkv": nn.Linear(6, 18), "out": nn.Linear(6, 6)})

    return network(forward, blocks=nn.ModuleList(block() for _ in range(2)), head=nn.Linear(6, 5))


def test_fused_and_unfused_attention_give_the_same_graph():
    x = torch.rand(2, 7, 6)
    fused, unfused = attention(True), attention(False)
    unfused.load_state_dict(fused.state_dict())
    torch.testing.assert_close(fused(x), unfused(x))
    first, second = from_module(fused, x), from_module(unfused, x)
    assert kinds(first).count("msa") == 2
    assert labelled(first) == labelled(second)
    assert torch.equal(first.distance, second.distance)


def combined(kind, a, b, layer, norm):
    """A new value from two earlier ones."""
    if kind == "layer":
        return layer(a)
    if kind == "norm":
        return norm(a)
    if kind == "sum":
        return a + b
    if kind == "concat":
        return layer(torch.cat([a, b], 1)[:, ::2])
    if kind == "gate":
        return a * layer(a.mean((2, 3), keepdim=True)).sigmoid()
    return F.max_pool2d(b, 3, 1, 1)


def random_network(seed):
    """Layers, joins, pools and gates between values that are drawn from all earlier ones."""
    draw = random.Random(seed)
    choices = ("layer", "norm", "sum", "concat", "gate", "pool")
    plan = [(draw.choice(choices), draw.random(), draw.random()) for _ in range(23)]

    def forward(self, x):
        values = [self.stem(x)]
        for (kind, first, second), layer, norm in zip(plan, self.layers, self.norms, strict=True):
            a, b = values[int(first * len(values))], values[int(second * len(values))]
            values.append(combined(kind, a, b, layer, norm))
        return self.head(sum(values[1:], values[0]).mean((2, 3)))

    return network(
        forward,
        stem=conv(3),
        layers=nn.ModuleList(conv() for _ in plan),
        norms=nn.ModuleList(nn.BatchNorm2d(5) for _ in plan),
        head=nn.Linear(5, 7),
    )


@pytest.mark.parametrize("seed", range(20))
def test_graphs_are_acyclic_and_complete(seed):
    graph = from_module(random_network(seed), MAP)
    nodes = graph.num_nodes
    assert (graph.edge_index[0] < graph.edge_index[1]).all()
    assert len(set(edges(graph))) == graph.edge_index.size(1)
    assert graph.node_names[0] == "input"
    assert (graph.edge_index[0] == 0).any()
    assert torch.bincount(graph.edge_index[1], minlength=nodes)[1:].min() == 1
    assert named(graph) == graph.node_names[-2:] == ["head.weight", "head.bias"]
    for kind, entering in zip(kinds(graph), sources(graph).values(), strict=True):
        assert len(entering) >= 2 if kind in ("sum", "concat", "cse") else len(entering) >= (kind != "input")
    assert len(set(graph.node_names)) == nodes


BOTH = ["b.weight", "b.bias", "c.weight", "c.bias"]
HEADS = {
    "two heads": (lambda self, x: (self.b(self.a(x)[:, 0]) + self.c(x[:, 1])) / 2, BOTH),
    "concatenated": (lambda self, x: torch.cat([self.b(self.a(x)), self.c(x)], -1), BOTH),
    "one for tokens": (lambda self, x: self.b(self.a(x)) + 0.5 * self.c(x).amax(1, keepdim=True), BOTH),
    "both pooled": (lambda self, x: self.b(self.a(x)).mean(1) + self.c(x).mean(1), BOTH),
    "probabilities": (lambda self, x: self.b(self.a(x)).softmax(-1), ["b.weight", "b.bias"]),
    "a residual stream": (lambda self, x: x + self.a(x), []),
    "a stream that begins with a layer": (lambda self, x: (y := self.a(x)) + self.b(y.relu()), []),
    "features one after another": (lambda self, x: torch.cat([y := self.a(x), self.b(y)], -1), []),
    "the same head twice": (lambda self, x: (y := self.b(self.a(x))) + y.relu(), ["b.weight", "b.bias"]),
    "similarities": (lambda self, x: self.a(x) @ self.b(x).mT, []),
    "attention": (lambda self, x: F.scaled_dot_product_attention(x, x, self.a(x)), []),
}


@pytest.mark.parametrize(("forward", "expected"), HEADS.values(), ids=HEADS)
def test_the_classification_layers_are_those_that_the_output_is_made_of(forward, expected):
    graph = from_module(network(forward, a=nn.Linear(5, 5), b=nn.Linear(5, 5), c=nn.Linear(5, 5)), TOKENS)
    assert named(graph) == expected
