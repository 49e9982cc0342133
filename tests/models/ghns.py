"""Small GHNs, and networks for them."""

import torch
from torch import nn

from ghn_pyg import GHN, GHNConfig
from tests.tracing.helpers import network, weight

ENCODERS = ("ghn3", "ghn2", "ghn1", "mlp")
X = torch.rand(2, 5, generator=torch.Generator().manual_seed(3))
IMAGES = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(5))


def make(encoder="ghn3", decoder="conv", **changes):
    torch.manual_seed(3)
    own = {"layers": 2, "heads": 3} if encoder == "ghn3" else {"layers": 0, "heads": 0, "kernel_crop": "corner"}
    sizes = {"hidden_channels": 12, "max_channels": 7, "max_kernel_size": 5, "num_classes": 11}
    return GHN(GHNConfig(encoder=encoder, decoder=decoder, **{**sizes, **own, **changes})).eval()


def vision(classes=13, bias=True):
    """A network with every kind of parameter."""

    def forward(self, x):
        x = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.last(x).mean(1))

    torch.manual_seed(5)
    return network(
        forward, conv=nn.Conv2d(3, 17, 5), norm=nn.BatchNorm2d(17), token=weight(1, 1, 17),
        positions=weight(1, 10, 17), last=nn.LayerNorm(17), head=nn.Linear(17, classes, bias=bias),
    )  # fmt: skip


def dense():
    return nn.Sequential(nn.Linear(5, 11), nn.ReLU(), nn.Linear(11, 3, bias=False))


def shape_of(prediction):
    return {name: tuple(tensor.shape) for name, tensor in prediction.items()}


def loss_of(prediction):
    """A random sum of all predicted numbers."""
    generator, total = torch.Generator().manual_seed(7), 0
    for name in sorted(prediction):
        values = prediction[name]
        total = total + (values * torch.randn(values.shape, generator=generator, dtype=values.dtype)).sum()
    return total
