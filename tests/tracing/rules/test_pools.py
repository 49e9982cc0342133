import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module
from ghn_pyg.tracing.rules import pools as rules_pools
from tests.tracing.helpers import assert_refused, assert_same_shapes, calls, kinds, network, rules_without_case, sources

LINE = torch.rand(2, 3, 23)
MAP = torch.rand(2, 3, 17, 13)
VOLUME = torch.rand(2, 3, 7, 11, 13)
X = torch.rand(2, 3, 5, 7)

WINDOWS = [
    {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    for kernel, stride, padding, ceil_mode in itertools.product((2, 3, 5), (None, 1, 2, 3), (0, 1), (False, True))
]
DILATED = [
    {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    for kernel, stride, padding, dilation, ceil_mode in itertools.product(
        (2, 3), (1, 2, 5), (0, 1), (2, 3), (False, True)
    )
]
UNEVEN = [
    {"kernel_size": (2, 3)},
    {"kernel_size": (3, 2), "stride": (1, 2)},
    {"kernel_size": (2, 5), "stride": (3, 1), "padding": (1, 2)},
    {"kernel_size": (5, 3), "stride": 2, "padding": (2, 0), "ceil_mode": True},
    {"kernel_size": [3, 3], "stride": [], "padding": [1]},
]
BY_RANK = (
    (LINE, F.max_pool1d, F.avg_pool1d),
    (MAP, F.max_pool2d, F.avg_pool2d),
    (VOLUME, F.max_pool3d, F.avg_pool3d),
)
POOLS = [
    *((pool, (x,), options) for x, *pools in BY_RANK for pool in pools for options in WINDOWS),
    *((pool, (x,), options) for x, pool, _ in BY_RANK for options in DILATED),
    *((pool, (MAP,), options) for pool in (F.max_pool2d, F.avg_pool2d) for options in UNEVEN),
    *((pool, (x[0], 3), {}) for x, *pools in BY_RANK for pool in pools),
    (F.max_pool1d, (LINE, (3,), (2,)), {}),
    (F.avg_pool1d, (LINE, (3,), (2,), (1,)), {}),
    (F.max_pool2d, (MAP, 3, 2, 1, 1, True), {}),
    (F.max_pool3d, (VOLUME, (2, 3, 5), (1, 2, 3), (1, 1, 2)), {}),
    (F.avg_pool2d, (MAP, 3, 2, 1, True, False), {}),
    (F.avg_pool2d, (MAP, 3), {"count_include_pad": False, "divisor_override": 2}),
    (F.avg_pool2d, (MAP, MAP.shape[2:]), {}),
    (F.avg_pool3d, (VOLUME, (2, 3, 5), (1, 2, 3)), {}),
    (torch.max_pool1d, (LINE, 3), {}),
    (torch.max_pool2d, (MAP, 3), {}),
    (torch.max_pool3d, (VOLUME, 3), {}),
    (F.max_pool1d, (LINE, 3), {"return_indices": True}),
    (F.max_pool2d, (MAP, 3), {"return_indices": True}),
    (F.max_pool3d, (VOLUME, 3), {"return_indices": True}),
    (F.max_pool2d_with_indices, (MAP, 3, 2), {}),
    (F.lp_pool2d, (MAP, 2, 3), {}),
    (F.fractional_max_pool2d, (MAP, 3, (5, 7)), {}),
]
ADAPTIVE = [
    *((pool, (LINE, size), {}) for pool in (F.adaptive_avg_pool1d, F.adaptive_max_pool1d) for size in (1, 5, (7,))),
    *(
        (pool, (MAP, size), {})
        for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
        for size in (1, 5, (3, 7), (None, 5), (1, None), [2, 3])
    ),
    *(
        (pool, (VOLUME, size), {})
        for pool in (F.adaptive_avg_pool3d, F.adaptive_max_pool3d)
        for size in (1, (2, 3, 5), (None, 2, 3))
    ),
    (F.adaptive_avg_pool2d, (MAP[0], 1), {}),
    (F.adaptive_avg_pool2d, (MAP,), {"output_size": (2, 3)}),
    (F.adaptive_max_pool1d, (LINE, 5, True), {}),
    (F.adaptive_max_pool2d, (MAP, 5), {"return_indices": True}),
    (F.adaptive_max_pool3d, (VOLUME, 5), {"return_indices": True}),
]
LP = [
    (F.lp_pool1d, (LINE, 2, 3), {}),
    (F.lp_pool2d, (MAP, 2.0, (2, 3)), {"stride": 2, "ceil_mode": True}),
    (F.lp_pool3d, (VOLUME, 3, 2), {"ceil_mode": False}),
]
CASES = [*POOLS, *ADAPTIVE, *LP]

REFUSED = [
    (F.max_pool2d, (MAP[:, :, :2], 3), {}),
    (F.avg_pool2d, (MAP, 19), {}),
    (F.max_pool2d, (LINE[0, 0], 3), {}),
    (F.adaptive_avg_pool2d, (LINE[0], (1, 1)), {}),
]


@calls(CASES)
def test_the_shape_is_what_pytorch_computes(function, args, kwargs):
    assert_same_shapes(function, args, kwargs)


def test_every_rule_has_a_case():
    assert rules_without_case([rules_pools], CASES) == set()


@calls(REFUSED)
def test_what_pytorch_refuses_fails(function, args, kwargs):
    assert_refused(function, args, kwargs)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "ceil_mode", "expected"),
    [
        (112, 3, 2, 1, 1, False, 56),
        (7, 2, 2, 0, 1, False, 3),
        (7, 2, 2, 0, 1, True, 4),
        (13, 3, 1, 0, 5, False, 3),
        # The last window would start in the padding.
        (5, 2, 3, 1, 1, True, 2),
    ],
)


# --- what becomes a node ---------------------------------------------------------------------------------------------


def between(pool, shape, layer=None):
    """The graph of a layer, ``pool`` and another layer."""
    layer = layer or nn.Conv2d(3, 5, 1, bias=False)
    features = pool(layer(torch.rand(shape))).flatten(1).shape[1]
    net = network(lambda self, x: self.b(pool(self.a(x)).flatten(1)), a=layer, b=nn.Linear(features, 2, bias=False))
    graph = from_module(net, torch.zeros(shape))
    return graph, kinds(graph)[2:-1]


@pytest.mark.parametrize(
    ("pool", "kind", "kernel"),
    [
        (nn.MaxPool2d(3), "max_pool", [1, 1, 3, 3]),
        (nn.MaxPool2d((2, 5)), "max_pool", [1, 1, 2, 5]),
        (nn.AvgPool2d(5), "avg_pool", [1, 1, 5, 5]),
        (nn.AvgPool2d((3, 1), stride=1), "avg_pool", [1, 1, 3, 1]),
        (lambda x: F.max_pool2d(x, kernel_size=2, stride=3), "max_pool", [1, 1, 2, 2]),
        (lambda x: F.avg_pool2d(input=x, kernel_size=3), "avg_pool", [1, 1, 3, 3]),
        (lambda x: F.max_pool2d(x, 3, return_indices=True)[0], "max_pool", [1, 1, 3, 3]),
        (nn.AdaptiveMaxPool2d((3, 13)), "max_pool", [1, 1, 6, 1]),
        (nn.AdaptiveAvgPool2d(1), "glob_avg", [0, 0, 0, 0]),
        (nn.AdaptiveAvgPool2d((2, 3)), "glob_avg", [0, 0, 0, 0]),
        (nn.LPPool2d(2, 3), "avg_pool", [1, 1, 3, 3]),
    ],
)
def test_pools_are_nodes(pool, kind, kernel):
    graph, found = between(pool, (2, 3, 17, 13))
    assert found == [kind]
    assert graph.node_shape[2].tolist() == kernel


@pytest.mark.parametrize(
    ("rank", "pool", "kind", "kernel"),
    [
        (1, nn.MaxPool1d(3), "max_pool", [1, 1, 3, 1]),
        (1, nn.AvgPool1d(5), "avg_pool", [1, 1, 5, 1]),
        (1, nn.AdaptiveAvgPool1d(1), "glob_avg", [0, 0, 0, 0]),
        (3, nn.MaxPool3d((2, 3, 5)), "max_pool", [1, 1, 3, 5]),
        (3, nn.AvgPool3d(2), "avg_pool", [1, 1, 2, 2]),
        (3, nn.AdaptiveAvgPool3d(1), "glob_avg", [0, 0, 0, 0]),
        (1, nn.LPPool1d(2, 3), "avg_pool", [1, 1, 3, 1]),
    ],
)
def test_pools_of_lines_and_volumes_are_nodes(rank, pool, kind, kernel):
    layer = {1: nn.Conv1d, 3: nn.Conv3d}[rank](3, 5, 1, bias=False)
    graph, found = between(pool, (2, 3, *(11, 13, 7)[:rank]), layer)
    assert found == [kind]
    assert graph.node_shape[2].tolist() == kernel


def test_indices_of_a_pool_lead_back_to_nothing():
    def forward(self, x):
        pooled, positions = self.pool(self.a(x))
        return self.b(self.unpool(pooled, positions))

    graph = from_module(
        network(
            forward, a=nn.Conv2d(3, 5, 1, bias=False), b=nn.Conv2d(5, 2, 1, bias=False),
            pool=nn.MaxPool2d(2, return_indices=True), unpool=nn.MaxUnpool2d(2),
        ),
        torch.zeros(1, 3, 6, 14),
    )  # fmt: skip
    assert kinds(graph) == ["input", "conv", "max_pool", "conv"]
    assert sources(graph)["b.weight"] == ["pool:max_pool"]
