"""A network in one line."""

from torch import nn

from ghn_pyg import GHN, GHNConfig, from_module
from tests.tracing.helpers import network


def graph_of(forward, inputs, **members):
    """The graph of a network with these members and this forward pass."""
    return from_module(network(forward, **members), inputs)


def linear(into=5, out=5):
    """A linear layer without bias."""
    return nn.Linear(into, out, bias=False)


def small_ghn(max_channels=3):
    """A tiny GHN, for tests of what it predicts."""
    return GHN(GHNConfig(hidden_channels=8, max_channels=max_channels, num_classes=5, layers=1, heads=2))
