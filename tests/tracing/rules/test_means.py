"""Global averages and other means."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.tracing.helpers import kinds
from tests.tracing.rules.helpers import graph_of, linear

CONV1D, CONV2D, CONV3D = (conv(3, 5, 1, bias=False) for conv in (nn.Conv1d, nn.Conv2d, nn.Conv3d))
LINE, MAP, VOLUME, TOKENS = (torch.rand(2, *size) for size in ((3, 11), (3, 17, 13), (3, 5, 7, 11), (11, 3)))


def averaged(mean, layer, x):
    features = mean(layer(x)).flatten(1).shape[1]
    return graph_of(lambda self, x: self.b(mean(self.a(x)).flatten(1)), x, a=layer, b=linear(features, 2))


AVERAGES = {
    "positions": (CONV2D, MAP, lambda x: x.mean((2, 3))),
    "by keyword": (CONV2D, MAP, lambda x: x.mean(dim=[-1, -2], keepdim=True)),
    "function": (CONV2D, MAP, lambda x: torch.mean(input=x, dim=(2, 3))),
    "channels last": (CONV2D, MAP, lambda x: x.permute(0, 2, 3, 1).mean((1, 2))),
    "tokens of a map": (CONV2D, MAP, lambda x: x.flatten(2).mT.mean(1)),
    "flattened": (CONV2D, MAP, lambda x: x.flatten(2).mean(-1)),
    "flattened, kept": (CONV2D, MAP, lambda x: x.flatten(2).mean(2, keepdim=True)),
    "view": (CONV2D, MAP, lambda x: x.view(2, 5, -1).mean(2)),
    "reshape": (CONV2D, MAP, lambda x: torch.reshape(x, (2, 5, -1)).relu().mean(-1)),
    "one after the other": (CONV2D, MAP, lambda x: x.mean(3).mean(2)),
    "from the left": (CONV2D, MAP, lambda x: x.mean(2).mean(2)),
    "one after the other, kept": (CONV2D, MAP, lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True)),
    "from the left, kept": (CONV2D, MAP, lambda x: x.mean(2, True).mean(3, True)),
    "line": (CONV1D, LINE, lambda x: x.mean(-1)),
    "line, kept": (CONV1D, LINE, lambda x: x.relu().mean(2, keepdim=True)),
    "tokens": (linear(3, 5), TOKENS, lambda x: x.mean(1)),
    "tokens last": (linear(3, 5), TOKENS, lambda x: x.mT.mean(2)),
    "volume": (CONV3D, VOLUME, lambda x: x.mean((2, 3, 4))),
    "volume, channels last": (CONV3D, VOLUME, lambda x: x.movedim(1, -1).mean((1, 2, 3))),
    "volume, flattened": (CONV3D, VOLUME, lambda x: x.flatten(2).mean(2)),
}


@pytest.mark.parametrize(("layer", "x", "mean"), AVERAGES.values(), ids=AVERAGES)
def test_a_mean_over_all_positions_is_a_global_average(layer, x, mean):
    graph = averaged(mean, layer, x)
    assert kinds(graph) == ["input", "conv", "glob_avg", "conv"]
    assert graph.edge_index.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert graph.node_shape[2].tolist() == [0, 0, 0, 0]


HEADS = {
    "attention": lambda q: F.scaled_dot_product_attention(*q.chunk(3, -1)).transpose(1, 2),
    "by hand": lambda q: (q[..., :2] @ q[..., 2:4].mT).softmax(-1).matmul(q[..., 4:]).transpose(1, 2),
    "features of a layer": lambda q: q.transpose(1, 2).relu(),
}


@pytest.mark.parametrize(
    "join", [lambda y: y.flatten(2), lambda y: y.reshape(2, 11, -1), lambda y: torch.cat(y.unbind(2), -1)]
)
@pytest.mark.parametrize("mix", HEADS.values(), ids=HEADS)
def test_a_mean_over_tokens_whose_heads_are_joined_is_a_global_average(mix, join):
    def forward(self, x):
        q = self.a(x).unflatten(-1, (5, 6)).transpose(1, 2)
        return self.b(join(mix(q)).mean(1))

    graph = graph_of(forward, TOKENS, a=linear(3, 30), b=linear(30 if mix is HEADS["features of a layer"] else 10, 2))
    assert "glob_avg" in kinds(graph)


OTHER = {
    "channels": lambda x: x.mean(1),
    "samples": lambda x: x.mean(0, keepdim=True),
    "samples and positions": lambda x: x.mean((0, 2, 3)).expand(2, 5),
    "channels and positions": lambda x: x.mean((1, 2, 3), keepdim=True),
    "all": lambda x: x.mean().expand(2, 1),
    "rows": lambda x: x.mean(3),
    "centred": lambda x: x - x.mean((2, 3), keepdim=True),
    "channels of tokens": lambda x: x.flatten(2).mT.mean(-1),
    "channels of a flat map": lambda x: x.flatten(2).mean(1),
    "variance": lambda x: x.var((2, 3)),
}


@pytest.mark.parametrize("mean", OTHER.values(), ids=OTHER)
def test_other_means_are_folded(mean):
    assert kinds(averaged(mean, CONV2D, MAP)) == ["input", "conv", "conv"]


def test_a_mean_of_a_constant_or_of_a_weight_is_no_node():
    def forward(self, x):
        centred = self.a.weight - self.a.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, centred) * torch.ones(1, 5, 7, 7).mean((2, 3), keepdim=True)

    graph = graph_of(forward, torch.zeros(1, 3, 7, 7), a=nn.Conv2d(3, 5, 1, bias=False))
    assert kinds(graph) == ["input", "conv"]
