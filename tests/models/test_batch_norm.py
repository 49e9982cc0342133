import pytest
import torch
from torch import nn

from ghn_pyg import batch_statistics, recalibrate
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.families.deepnets.network import Network

BATCHES = [torch.tensor([[1.0, 2], [3, 6]]), torch.tensor([[5.0, 0], [9, 0]])]
MEANS, VARIANCES = [4.5, 2.0], [5.0, 4.0]  # means of the two batches' means and variances


@pytest.mark.parametrize("tracks", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_statistics_are_the_means_of_those_of_the_batches(tracks, affine):
    norm = nn.BatchNorm1d(2, affine=affine, track_running_stats=tracks).eval()
    recalibrate(norm, BATCHES)
    assert (norm.running_mean.tolist(), norm.running_var.tolist()) == (MEANS, VARIANCES)
    assert (norm.num_batches_tracked.item(), norm.track_running_stats, norm.training) == (2, True, False)
    assert {"running_mean", "running_var", "num_batches_tracked"} <= norm.state_dict().keys()
    torch.testing.assert_close(norm(torch.tensor([[4.5, 6]])), torch.tensor([[0.0, 2]]), rtol=1e-4, atol=1e-4)


def test_a_norm_that_no_batch_reaches_stays_as_it_is():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = (nn.BatchNorm1d(2, track_running_stats=False) for _ in range(2))

        def forward(self, x):
            return self.used(x)

    network = recalibrate(Network(), BATCHES)
    assert network.used.running_mean.tolist() == MEANS
    assert (network.unused.running_mean, network.unused.track_running_stats) == (None, False)


def test_an_error_gives_no_statistics():
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate(norm, [])
    with pytest.raises((ValueError, RuntimeError)):
        recalibrate(norm, [BATCHES[0], torch.zeros(2, 3)])
    assert (norm.running_mean, norm.track_running_stats) == (None, False)


def test_networks_of_deepnets_get_statistics():
    """Afterwards the logits of an image do not depend on the others in its batch."""
    torch.manual_seed(3)
    graph = DeepNets("test", image_size=8, width=8)[0]
    network, images = Network(graph.architecture, 10, 8).eval(), torch.rand(13, 3, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(network(images)[:2], network(images[:2]), rtol=0.01)
        recalibrate(network, [images[:7], images[7:]])
        torch.testing.assert_close(network(images)[:2], network(images[:2]), rtol=1e-3, atol=1e-3)
        with batch_statistics(network):
            assert not torch.allclose(network(images)[:2], network(images[:2]), rtol=0.01)
