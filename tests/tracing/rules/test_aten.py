"""Operators: exported programs, TorchScript and code that calls ``torch.ops`` have the graph of the network itself."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module
from tests.tracing.helpers import kinds, network, sources

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
IMAGE = torch.rand(2, 3, 13, 11)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 7, 3, bias=False), nn.BatchNorm2d(7), nn.ReLU(inplace=True), nn.MaxPool2d(2, return_indices=False),
        nn.Conv2d(7, 14, 3, groups=7, padding=1), nn.GroupNorm(2, 14), nn.Hardswish(), nn.ConvTranspose2d(14, 5, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).eval()  # fmt: skip


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.norm = nn.Embedding(11, 6), nn.LayerNorm(6)
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, ids):
        x = self.tokens(ids)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4).unbind()
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head(F.gelu(x[:, 1:]).mean(1))


NETWORKS = {"convolutions": (convolutional, IMAGE), "attention": (Attention, torch.randint(11, (2, 4)))}
REWRITTEN = {
    "export": lambda model, x: torch.export.export(model, (x,)).module(),
    "core operators": lambda model, x: torch.export.export(model, (x,)).run_decompositions().module(),
    "unflattened": lambda model, x: torch.export.unflatten(torch.export.export(model, (x,))),
    "script": lambda model, x: torch.jit.script(model),
    "jit.trace": torch.jit.trace,
    "fx": lambda model, x: torch.fx.symbolic_trace(model),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rewrite", REWRITTEN.values(), ids=REWRITTEN)
def test_a_rewritten_network_has_the_graph_of_the_network(name, rewrite):
    make, x = NETWORKS[name]
    model = make().eval()
    expected = from_module(model, x)
    with warnings.catch_warnings(action="ignore"):
        rewritten = rewrite(model, x)
    modes = [module.training for module in rewritten.modules()]
    graph = from_module(rewritten, x)
    assert kinds(graph) == kinds(expected)
    assert graph.edge_index.tolist() == expected.edge_index.tolist()
    assert [[spec.name for spec in specs] for specs in graph.params] == [
        [spec.name for spec in specs] for specs in expected.params
    ]
    assert graph.kept == expected.kept == {}
    assert [module.training for module in rewritten.modules()] == modes


def test_a_scripted_function_passes_on_what_it_gets():
    @torch.jit.script
    def gate(p, q):
        if bool(p.sum() > 0):
            p = p.sigmoid_()
        return p * torch.tanh(q)

    members = {name: nn.Linear(5, 5, bias=False) for name in "abc"}
    graph = from_module(network(lambda self, x: self.c(gate(self.a(x), self.b(x))), **members), torch.rand(2, 5))
    assert sources(graph)["c.weight"] == ["a.weight", "b.weight"]


def test_a_scripted_layer_in_a_network():
    model = nn.Sequential(nn.Linear(5, 7), torch.jit.script(nn.Sequential(nn.Linear(7, 3), nn.BatchNorm1d(3))))
    graph = from_module(model, torch.rand(2, 5))
    assert graph.node_names == ["input", "0.weight", "0.bias", "1.0.weight", "1.0.bias", "1.1.weight"]
    assert model[1][1].num_batches_tracked == 0


def test_functions_of_torch_ops():
    aten = torch.ops.aten

    def forward(self, x):
        x = aten.convolution(x, self.w, self.b, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
        x, *_ = aten.native_group_norm(x, self.gain, self.bias, 2, 4, 99, 2, 1e-5)
        x = aten.slice.Tensor(aten.relu_(x), 2, 1, 5)
        return aten.addmm(self.c, aten.mean.dim(x, [2, 3]), aten.t(self.v))

    def weight(*shape):
        return nn.Parameter(torch.rand(shape))

    members = {"w": weight(4, 3, 3, 3), "b": weight(4), "gain": weight(4), "bias": weight(4), "v": weight(5, 4),
               "c": weight(5)}  # fmt: skip
    graph = from_module(network(forward, **members), IMAGE)
    assert graph.node_names == ["input", "w", "b", "gain", "glob_avg", "v", "c"]
