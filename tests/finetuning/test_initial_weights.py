import pytest
import torch
from torch import nn

from ghn_pyg import GHN, GHNConfig, from_module
from ghn_pyg.finetuning import start_from


@pytest.mark.parametrize("keep_classifier", [False, True])
def test_a_network_starts_from_a_prediction(keep_classifier):
    torch.manual_seed(3)
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, max_kernel_size=5, layers=1, heads=2, num_classes=10))
    network = nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU(), nn.Flatten(), nn.Linear(7 * 36, 10))
    graph, before = from_module(network, torch.rand(2, 3, 8, 8)), network[4].weight.detach().clone()
    plain = ghn.predict(graph)
    loaded = start_from(ghn, network, graph, noise=0.5, orthogonal=0, keep_classifier=keep_classifier, seed=5)
    assert set(loaded) == set(plain) - ({"4.weight", "4.bias"} if keep_classifier else set())
    for name in loaded:
        torch.testing.assert_close(network.get_parameter(name).detach(), loaded[name])
    rows = network[0].weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.t(), torch.eye(7), rtol=0, atol=1e-5)
    torch.testing.assert_close(network[4].weight.detach(), before if keep_classifier else plain["4.weight"])
    start_from(ghn, network, graph, noise=0.0)
    torch.testing.assert_close(network[0].weight.detach(), plain["0.weight"])
