import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.tracing.helpers import kinds, sources
from tests.tracing.rules.helpers import graph_of

LAYERS = {3: nn.Conv1d(3, 5, 1, bias=False), 4: nn.Conv2d(3, 5, 1, bias=False), 5: nn.Conv3d(3, 5, 1, bias=False)}
LINE, MAP, VOLUME = torch.rand(2, 3, 11), torch.rand(2, 3, 17, 13), torch.rand(2, 3, 11, 13, 7)
POOLS = [
    (MAP, nn.MaxPool2d(3), "max_pool", [1, 1, 3, 3]),
    (MAP, nn.MaxPool2d((2, 5)), "max_pool", [1, 1, 2, 5]),
    (MAP, nn.AvgPool2d(5), "avg_pool", [1, 1, 5, 5]),
    (MAP, nn.AvgPool2d((3, 1), stride=1), "avg_pool", [1, 1, 3, 1]),
    (MAP, lambda x: F.max_pool2d(x, kernel_size=2, stride=3), "max_pool", [1, 1, 2, 2]),
    (MAP, lambda x: F.avg_pool2d(input=x, kernel_size=3), "avg_pool", [1, 1, 3, 3]),
    (MAP, lambda x: F.max_pool2d(x, 3, return_indices=True)[0], "max_pool", [1, 1, 3, 3]),
    (MAP, nn.AdaptiveMaxPool2d((3, 13)), "max_pool", [1, 1, 6, 1]),
    (MAP, nn.AdaptiveAvgPool2d(1), "glob_avg", [0, 0, 0, 0]),
    (MAP, nn.AdaptiveAvgPool2d((2, 3)), "glob_avg", [0, 0, 0, 0]),
    (MAP, nn.LPPool2d(2, 3), "avg_pool", [1, 1, 3, 3]),
    (LINE, nn.MaxPool1d(3), "max_pool", [1, 1, 3, 1]),
    (LINE, nn.AvgPool1d(5), "avg_pool", [1, 1, 5, 1]),
    (LINE, nn.AdaptiveAvgPool1d(1), "glob_avg", [0, 0, 0, 0]),
    (LINE, nn.LPPool1d(2, 3), "avg_pool", [1, 1, 3, 1]),
    (VOLUME, nn.MaxPool3d((2, 3, 5)), "max_pool", [1, 1, 3, 5]),
    (VOLUME, nn.AvgPool3d(2), "avg_pool", [1, 1, 2, 2]),
    (VOLUME, nn.AdaptiveAvgPool3d(1), "glob_avg", [0, 0, 0, 0]),
]


@pytest.mark.parametrize(("x", "pool", "kind", "kernel"), POOLS)
def test_pools_are_nodes(x, pool, kind, kernel):
    layer = LAYERS[x.dim()]
    last = nn.Linear(pool(layer(x)).flatten(1).shape[1], 2, bias=False)
    graph = graph_of(lambda self, x: self.b(pool(self.a(x)).flatten(1)), x, a=layer, b=last)
    assert kinds(graph) == ["input", "conv", kind, "conv"]
    assert graph.node_shape[2].tolist() == kernel


@pytest.mark.parametrize(("kernel", "kind"), [(7, "cse"), (5, "mul")])
def test_a_pool_over_the_whole_map_is_the_squeeze_of_a_gate(kernel, kind):
    def forward(self, x):
        x = self.a(x)
        return self.b(x * self.gate(F.avg_pool2d(x, kernel, stride=7)).sigmoid())

    layers = {name: nn.Conv2d(3, 3, 1, bias=False) for name in ("a", "gate", "b")}
    graph = graph_of(forward, torch.zeros(1, 3, 7, 7), **layers)
    expected = ["cse"] if kind == "cse" else []
    assert [node for node in kinds(graph) if node != "conv"] == ["input", *(["avg_pool"] * (not expected)), *expected]


def test_indices_of_a_pool_lead_back_to_nothing():
    def forward(self, x):
        pooled, positions = self.pool(self.a(x))
        return self.b(self.unpool(pooled, positions))

    graph = graph_of(
        forward,
        torch.zeros(1, 3, 6, 14),
        a=nn.Conv2d(3, 5, 1, bias=False),
        b=nn.Conv2d(5, 2, 1, bias=False),
        pool=nn.MaxPool2d(2, return_indices=True),
        unpool=nn.MaxUnpool2d(2),
    )
    assert kinds(graph) == ["input", "conv", "max_pool", "conv"]
    assert sources(graph)["b.weight"] == ["pool:max_pool"]
