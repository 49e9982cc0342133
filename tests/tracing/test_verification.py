import copy
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from ghn_pyg import Verification, from_module, register_layer, verify
from ghn_pyg.tracing.registry import HANDLERS
from tests.tracing.helpers import assert_unchanged, network, snapshot, weight

L = nn.Linear
ROWS = torch.rand(2, 3)
TOKENS = torch.rand(2, 5, 3)
IDS = torch.tensor([[1, 4, 2, 0, 3]])
IMAGE = torch.rand(1, 3, 11, 13)


def attention_of_slices(net, x):
    q, k, v = (F.linear(x, net.w[start : start + 3], net.b[start : start + 3]) for start in (0, 3, 6))
    return net.out((q @ k.mT).softmax(-1) @ v)


def vectors_of_attention(net, x):
    h = net.inner(x)
    source, target = (h * net.s).sum(-1), (h * net.t).sum(-1)
    return net.out(F.leaky_relu(source[:, None] + target).softmax(-1) @ h)


def modulated(net, x, style):
    w = net.w * net.style(style).view(1, 5, 1, 1)
    return net.out(F.conv2d(net.inner(x), w * (w.square().sum((1, 2, 3), keepdim=True) + 1).rsqrt()))


def experts(net, x):
    gates = net.router(x).softmax(-1)
    chosen, out = gates.argmax(-1), torch.zeros_like(x)
    for number, expert in enumerate(net.experts):
        rows = (chosen == number).nonzero()[:, 0]
        if rows.numel():
            out[rows] = expert(x[rows]) * gates[rows, number, None]
    return net.out(out)


def written(net, x):
    both = torch.empty(2, 2, 5)
    both[:, 0] = net.a(x)
    both[:, 1] = net.b(x)
    return net.out(both.sum(1))


def couple(net, x):
    first, second = x[:, :1], x[:, 1:]
    return torch.cat([first, second * net.scale(first).exp() + net.shift(first)], -1)


def squeezed(net, x):
    x = net.inner(x)
    return net.out((x * net.b(F.relu(net.a(x.mean((2, 3))))).sigmoid()[:, :, None, None]).mean((2, 3)))


def norm_by_hand(net, x):
    x = net.inner(x)
    return net.out(net.g * (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt() + net.b)


def language_model(net, ids):
    return F.linear(net.inner(net.table(ids) + net.positions[:, : ids.shape[1]]), net.table.weight)


def latents(net, x):
    return net.out(net.attention(net.latents.expand(2, -1, -1), x, x)[0])


def tokens_and_positions(net, x):
    return net.layer(torch.cat([net.token.expand(2, -1, -1), x], 1) + net.positions)[:, 0]


def low_rank(net, x):
    return net.out(F.linear(x, net.inner.weight + net.b @ net.a, net.inner.bias))


def normalised(function):
    """A linear layer whose weight is computed, before another one."""
    return nn.Sequential(function(L(3, 5)), nn.Tanh(), L(5, 2))


def out(features):
    return L(features, 7)


NETWORKS = {
    "chain": lambda: (nn.Sequential(L(3, 5), nn.ReLU(), nn.LayerNorm(5), out(5)), ROWS),
    "residual": lambda: (network(lambda n, x: n.out(x + n.b(n.a(x))), a=L(3, 5), b=L(5, 3), out=out(3)), ROWS),
    "branches": lambda: (
        network(lambda n, x: n.out(torch.cat([n.a(x), n.b(x)], -1)), a=L(3, 5), b=L(3, 2), out=out(7)),
        ROWS,
    ),
    "in place": lambda: (
        network(lambda n, x: n.out(n.a(x).add_(n.b(x)).relu_()), a=L(3, 5), b=L(3, 5), out=out(5)),
        ROWS,
    ),
    "written into": lambda: (network(written, a=L(3, 5), b=L(3, 5), out=out(5)), ROWS),
    "shared layer": lambda: (network(lambda n, x: n.out(n.a(n.a(x).relu())), a=L(3, 3), out=out(3)), ROWS),
    "siamese": lambda: (network(lambda n, x, y: n.out(n.a(x) - n.a(y)), a=L(3, 5), out=out(5)), (ROWS, ROWS + 1)),
    "bilinear": lambda: (
        network(lambda n, x, y: n.out(n.a(x, y)), a=nn.Bilinear(3, 2, 5), out=out(5)),
        (ROWS, ROWS[:, 1:]),
    ),
    "coupling": lambda: (network(couple, scale=L(1, 2), shift=L(1, 2)), ROWS),
    "norm by hand": lambda: (network(norm_by_hand, inner=L(3, 5), g=weight(5), b=weight(5), out=out(5)), ROWS),
    "noise": lambda: (
        network(lambda n, x: n.out(n.a(x) + n.b(torch.randn(2, 3))), a=L(3, 5), b=L(3, 5), out=out(5)),
        ROWS,
    ),
    "stack of matrices": lambda: (network(lambda n, x: n.out((x @ n.w).sum(0)), w=weight(2, 3, 5), out=out(5)), ROWS),
    "experts": lambda: (
        network(experts, router=L(3, 3), experts=nn.ModuleList([L(3, 3) for _ in range(3)]), out=out(3)),
        ROWS,
    ),
    "attention vectors": lambda: (
        network(vectors_of_attention, inner=L(3, 5), s=weight(5), t=weight(5), out=out(5)),
        ROWS,
    ),
    "low rank": lambda: (network(low_rank, inner=L(3, 5), a=weight(2, 3), b=weight(5, 2), out=out(5)), ROWS),
    "spectral norm": lambda: (normalised(parametrizations.spectral_norm), ROWS),
    "weight norm": lambda: (normalised(parametrizations.weight_norm), ROWS),
    "orthogonal": lambda: (normalised(parametrizations.orthogonal), ROWS),
    "convolutions": lambda: (
        nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 6, 3, groups=6),
            nn.GroupNorm(2, 6),
            nn.ConvTranspose2d(6, 5, 2),
            nn.PReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            out(5),
        ),
        IMAGE,
    ),
    "squeeze": lambda: (network(squeezed, inner=nn.Conv2d(3, 5, 3), a=L(5, 2), b=L(2, 5), out=out(5)), IMAGE),
    "modulated": lambda: (
        network(modulated, inner=nn.Conv2d(3, 5, 3), w=weight(7, 5, 3, 3), style=L(3, 5), out=nn.Conv2d(7, 2, 1)),
        (IMAGE, ROWS[:1]),
    ),
    "encoder": lambda: (nn.TransformerEncoderLayer(6, 2, 5, batch_first=True), torch.rand(2, 5, 6)),
    "encoder and decoder": lambda: (
        nn.Transformer(6, 2, 1, 1, 5, batch_first=True),
        (torch.rand(2, 5, 6), torch.rand(2, 7, 6)),
    ),
    "attention of two widths": lambda: (
        network(
            lambda n, x, y: n.attention(y, x, x)[0],
            attention=nn.MultiheadAttention(6, 2, kdim=3, vdim=3, batch_first=True),
        ),
        (TOKENS, torch.rand(2, 7, 6)),
    ),
    "attention of slices": lambda: (network(attention_of_slices, w=weight(9, 3), b=weight(9), out=out(3)), TOKENS),
    "latents": lambda: (
        network(latents, latents=weight(1, 2, 6), attention=nn.MultiheadAttention(6, 2, batch_first=True), out=out(6)),
        torch.rand(2, 5, 6),
    ),
    "tokens and positions": lambda: (
        network(tokens_and_positions, token=weight(1, 1, 6), positions=weight(1, 6, 6), layer=L(6, 5)),
        torch.rand(2, 5, 6),
    ),
    "language model": lambda: (
        network(language_model, table=nn.Embedding(11, 3), positions=weight(1, 7, 3), inner=L(3, 3)),
        IDS,
    ),
    "looked-up positions": lambda: (
        network(
            lambda n, ids: n.out(n.a(ids) + n.b(torch.arange(5))),
            a=nn.Embedding(11, 3),
            b=nn.Embedding(7, 3),
            out=out(3),
        ),
        IDS,
    ),
    "mask of ids": lambda: (
        network(
            lambda n, ids: n.out(n.inner(n.table(ids)) * (ids != 0)[..., None]),
            table=nn.Embedding(11, 3),
            inner=L(3, 5),
            out=out(5),
        ),
        IDS,
    ),
}


def made(name):
    torch.manual_seed(3)
    return NETWORKS[name]()


@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_agree_with_the_run(name):
    model, inputs = made(name)
    result = verify(model, inputs)
    assert result, str(result)
    unused = name == "experts" and 4  # two of them get no row
    assert (result.compared, len(result.not_exercised)) == (
        sum(map(bool, from_module(model, inputs).params)) - unused,
        unused,
    )


# --- damaged graphs --------------------------------------------------------------------------------------------------


def without_edge(graph, number):
    damaged = copy.copy(graph)
    kept = torch.arange(graph.edge_index.shape[1]) != number
    damaged.edge_index = graph.edge_index[:, kept]
    return damaged


@pytest.mark.parametrize(
    "name", ["chain", "residual", "branches", "norm by hand", "convolutions", "encoder", "latents"]
)
def test_each_dropped_edge_is_seen(name):
    model, inputs = made(name)
    graph = from_module(model, inputs)
    starts = set(graph.edge_index[1][graph.edge_index[0] == 0].tolist())
    for number, (source, target) in enumerate(graph.edge_index.t().tolist()):
        alone = graph.edge_index[1].eq(target).sum() == 1
        if not (target in starts and source == 0 and alone):  # nothing before a node means the input
            assert not verify(model, inputs, without_edge(graph, number)), (source, target)


def test_an_added_edge_is_seen():
    model, inputs = made("chain")
    graph = from_module(model, inputs)
    graph.edge_index = torch.cat([graph.edge_index, torch.tensor([[1], [4]])], 1)
    (difference,) = verify(model, inputs, graph).differences
    assert str(difference) == "3.weight follows 0.weight, 2.weight in the graph, and 2.weight in the run."


def test_swapped_parameters_are_seen():
    model, inputs = made("residual")
    graph = from_module(model, inputs)
    first, second = (graph.node_names.index(name) for name in ("a.bias", "b.bias"))
    for values in (graph.params, graph.node_names):
        values[first], values[second] = values[second], values[first]
    assert [difference.node for difference in verify(model, inputs, graph).differences] == [
        "b.bias", "b.weight", "a.bias", "out.weight",
    ]  # fmt: skip


def test_a_reversed_chain_is_seen():
    model, inputs = made("chain")
    graph = from_module(model, inputs)
    graph.edge_index = graph.edge_index.flip(0)
    assert len(verify(model, inputs, graph).differences) == 5


def test_a_weight_that_is_added_is_seen():
    model, inputs = made("norm by hand")
    graph = from_module(model, inputs)
    node = graph.node_names.index("g")
    specs = graph.params[node]
    for spec, role in zip(specs, ("bias", "gain"), strict=True):
        object.__setattr__(spec, "role", role)
    assert {str(difference) for difference in verify(model, inputs, graph).differences} == {
        "b is a gain in the graph, and the run adds it to activations.",
        "g is a bias in the graph, and the run multiplies activations by it.",
    }


def test_a_parameter_that_is_used_after_all_is_seen():
    model = network(lambda n, x: n.b(n.a(x)), a=L(3, 5), b=L(5, 2))
    graph = from_module(model, ROWS)
    graph.kept_items = (("a.weight", "the forward pass does not use it"),)
    graph.params[1].clear()
    assert str(verify(model, ROWS, graph)) == (
        "a.weight is not used according to the graph, and the run uses it.\n"
        "3 nodes with parameters compared with a real run, 1 difference."
    )


def test_a_graph_of_another_network_is_refused():
    with pytest.raises(ValueError, match=r"expected a graph of Linear, got one with weight of shape \(5, 3\)"):
        verify(L(3, 2), ROWS, from_module(L(3, 5), ROWS))


# --- what the run does -----------------------------------------------------------------------------------------------


def test_the_report():
    result = Verification((), 1, ("a", "b"))
    assert result
    assert str(result) == (
        "1 node with parameters compared with a real run, no difference.\nNot exercised by the run: a, b."
    )


def branch(net, x):
    return net.out(net.a(x) if x.sum() > 100 else net.b(x))


def test_parts_that_the_run_leaves_out_are_named():
    model = network(branch, a=L(3, 5), b=L(3, 5), out=out(5))
    result = verify(model, ROWS)
    assert result
    assert set(result.not_exercised) <= {"a.weight", "a.bias"}
    assert result.compared == 2 + 2 * ("b.weight" in str(from_module(model, ROWS).node_names))


def with_head(net, x):
    x = net.inner(x)
    return (net.out(x), net.head(x)) if net.training else net.out(x)


def test_heads_that_run_in_training_only_are_compared():
    model = network(
        with_head,
        inner=nn.Sequential(nn.Conv2d(3, 5, (11, 13)), nn.BatchNorm2d(5), nn.Flatten()),
        out=out(5),
        head=out(5),
    )
    result = verify(model.eval(), IMAGE)
    assert (bool(result), result.compared, result.not_exercised) == (True, 7, ())


class Restless(nn.Module):
    """Changes all that a forward pass can change."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.out = L(3, 5), nn.BatchNorm1d(5), L(5, 2)
        self.register_buffer("calls", torch.zeros(1))
        self.last = None

    def forward(self, x):
        self.calls += 1
        self.inner.weight.data.mul_(2)
        self.last = self.norm(self.inner(x.mul_(torch.rand(1) + random.random())))
        return self.out(self.last)


@pytest.mark.parametrize("training", [False, True])
def test_network_inputs_and_random_numbers_stay_as_they_are(training):
    model, inputs = Restless().train(training), ROWS.clone()
    before, states = snapshot(model), (torch.get_rng_state(), random.getstate())
    assert verify(model, inputs)
    assert_unchanged(model, before)
    assert torch.equal(inputs, ROWS)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert torch.backends.mkldnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_forward_pass_that_fails_says_so_and_restores_the_network():
    def forward(net, x):
        net.inner.weight.data.zero_()
        return net.inner(x) if x.is_meta else x.missing

    model = network(forward, inner=L(3, 2))
    values = model.inner.weight.detach().clone()
    graph = from_module(L(3, 2), ROWS)
    graph.params[1][0], graph.params[2][0] = (type(s)("inner." + s.name, s.shape, s.role) for (s,) in graph.params[1:])
    with pytest.raises(AttributeError, match="missing"):
        verify(model, ROWS, graph)
    assert torch.equal(model.inner.weight, values)


def test_networks_and_inputs_without_memory():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 3))
    state = torch.get_rng_state()
    assert verify(model, torch.empty(1, 3, 7, 7, device="meta"))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = weight(5)

    def forward(self, x):
        return x * self.scale / 2


def test_layers_with_a_handler_run_themselves():
    register_layer(Doubled)(lambda layer: [("ln", [("scale", "gain")])])
    try:
        result = verify(nn.Sequential(L(3, 5), Doubled(), L(5, 2)), ROWS)
    finally:
        del HANDLERS[Doubled]
    assert (bool(result), result.compared) == (True, 5)
