"""Statistics of batch norms: those of the batch, and new running ones."""

import copy

import pytest
import torch
from torch import nn

from ghn_pyg import batch_statistics, recalibrate
from tests.tracing.helpers import assert_unchanged, network, snapshot

# --- statistics of the batch -----------------------------------------------------------------------------------------


def normed():
    """Batch norms whose running statistics are far off, one of them without any."""
    model = nn.Sequential(
        nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.5), nn.BatchNorm1d(7, affine=False, momentum=None),
        nn.BatchNorm1d(7, track_running_stats=False),
    )  # fmt: skip
    model[1].running_mean.fill_(3)
    model[1].running_var.fill_(5)
    return model


INPUTS = torch.randn(13, 5, generator=torch.Generator().manual_seed(7))


def normalised(values):
    return (values - values.mean(0)) / (values.var(0, unbiased=False) + 1e-5).sqrt()


@pytest.mark.parametrize("training", [False, True])
def test_norms_use_the_batch(training):
    model = normed().train(training)
    model[2].eval()
    before = snapshot(model)
    with batch_statistics(model) as same:
        assert same is model
        result = model(INPUTS)
        assert not model[2].training
    torch.testing.assert_close(result, normalised(normalised(normalised(model[0](INPUTS)))))
    assert_unchanged(model, before)


def test_statistics_come_back_as_they_were():
    model = normed().eval()
    mean, modes = model[1].running_mean, [module.training for module in model]
    outside = model(INPUTS)
    with batch_statistics(model):
        with batch_statistics(model):
            inner = model(INPUTS)
        assert torch.equal(model(INPUTS), inner)
    assert model[1].running_mean is mean
    assert mean.tolist() == [3] * 7
    assert model[1].num_batches_tracked.item() == 0
    assert [module.training for module in model] == modes
    assert [norm.track_running_stats for norm in (model[1], model[3], model[4])] == [True, True, False]
    assert torch.equal(model(INPUTS), outside)
    assert not torch.equal(inner, outside)


def test_statistics_come_back_after_an_error():
    model = normed().eval()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), batch_statistics(model):
        model(torch.ones(2, 3))
    assert_unchanged(model, before)


def test_shared_norms():
    norm = nn.BatchNorm1d(5)
    model = nn.Sequential(norm, nn.ReLU(), norm).eval()
    before = snapshot(model)
    with batch_statistics(model):
        result = model(INPUTS)
    torch.testing.assert_close(result, normalised(normalised(INPUTS).relu()))
    assert_unchanged(model, before)


def test_gradients_go_through_the_statistics():
    model, inputs = nn.BatchNorm1d(5).eval(), INPUTS.clone().requires_grad_()
    with batch_statistics(model):
        model(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, torch.zeros(13, 5), atol=1e-5, rtol=0)


def test_networks_without_batch_norm():
    model = nn.Linear(5, 7)
    with batch_statistics(model):
        model(INPUTS)
    assert recalibrate(model, [INPUTS]) is model


# --- new running statistics ------------------------------------------------------------------------------------------

BATCHES = [torch.randn(size, 5, generator=torch.Generator().manual_seed(size)) for size in (2, 3, 7, 11)]


def norm():
    layer = nn.BatchNorm1d(5, momentum=0.3)
    layer.running_mean.fill_(3)
    layer.running_var.fill_(5)
    layer.num_batches_tracked.fill_(17)
    return layer


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pairs", [False, True])
def test_recalibration(training, pairs):
    """The averages over batches of their means and unbiased variances."""
    layer = norm().train(training)
    batches = [(batch, torch.zeros(len(batch))) for batch in BATCHES] if pairs else BATCHES
    assert recalibrate(layer, batches) is layer
    torch.testing.assert_close(layer.running_mean, torch.stack([batch.mean(0) for batch in BATCHES]).mean(0))
    torch.testing.assert_close(layer.running_var, torch.stack([batch.var(0) for batch in BATCHES]).mean(0))
    assert layer.num_batches_tracked.item() == 4
    assert layer.momentum == 0.3
    assert layer.training is training


@pytest.mark.parametrize(("count", "used"), [(1, 1), (3, 3), (4, 4), (10, 4)])
def test_no_more_batches_than_asked_for(count, used):
    left = iter(BATCHES)
    layer = recalibrate(norm(), left, count=count)
    assert layer.num_batches_tracked.item() == used
    assert len(list(left)) == 4 - used


@pytest.mark.parametrize(("batches", "count"), [([], 10), (BATCHES, 0), (iter([]), 3)])
def test_recalibration_without_batches(batches, count):
    layer = norm()
    before = snapshot(layer)
    with pytest.raises(ValueError, match="recalibrate expected at least one batch, got none"):
        recalibrate(layer, batches, count=count)
    assert_unchanged(layer, before)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (BATCHES[0], r"expected batches, .*, got one tensor of shape \(2, 5\); put it into a list"),
        ([BATCHES[0], {"image": BATCHES[1], "label": 3}], "got a dictionary with 'image', 'label'; pick the inputs"),
    ],
)
def test_recalibration_with_what_are_no_batches(batches, message):
    layer = norm()
    before = snapshot(layer)
    with pytest.raises(TypeError, match=message):
        recalibrate(layer, batches)
    assert_unchanged(layer, before)


def test_recalibration_leaves_parameters():
    model = normed()
    before = copy.deepcopy(dict(model.named_parameters()))
    recalibrate(model, BATCHES, device="cpu")
    torch.testing.assert_close(dict(model.named_parameters()), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_recalibrated_networks_are_near_batch_statistics():
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.BatchNorm1d(7)).eval()
    inputs = torch.randn(1009, 5, generator=torch.Generator().manual_seed(3))
    with batch_statistics(model):
        expected = model(inputs)
    recalibrate(model, [inputs])
    torch.testing.assert_close(model(inputs), expected, rtol=1e-2, atol=1e-2)


def test_recalibration_leaves_the_mode_of_each_part():
    model = normed().train()
    model[2].eval()
    recalibrate(model, BATCHES)
    assert [part.training for part in model] == [True, True, False, True, True]


@pytest.mark.parametrize("training", [False, True])
def test_recalibration_that_fails_leaves_the_network(training):
    model = nn.Sequential(norm(), nn.Linear(5, 2)).train(training)
    before, buffers = snapshot(model), list(model.buffers())
    with pytest.raises(RuntimeError):
        recalibrate(model, [BATCHES[0], torch.ones(2, 3)])
    assert_unchanged(model, before)
    assert model[0].momentum == 0.3
    assert [part.training for part in model.modules()] == [training] * 3
    assert all(now is then for now, then in zip(model.buffers(), buffers, strict=True))


def test_recalibration_after_batches_that_fail_to_load():
    def batches():
        yield BATCHES[0]
        raise OSError("a damaged file")

    layer = norm()
    before = snapshot(layer)
    with pytest.raises(OSError, match="a damaged file"):
        recalibrate(layer, batches())
    assert_unchanged(layer, before)


def test_recalibration_runs_the_network_as_in_evaluation():
    """Dropout would change what the norm sees."""
    model = nn.Sequential(nn.Dropout(0.9), norm()).train()
    recalibrate(model, BATCHES)
    torch.testing.assert_close(model[1].running_mean, torch.stack([batch.mean(0) for batch in BATCHES]).mean(0))
    assert [part.training for part in model.modules()] == [True] * 3


def test_norms_that_no_batch_reaches_keep_their_statistics():
    model = network(lambda self, x: self.used(x), used=norm(), unused=norm())
    before = snapshot(model.unused)
    recalibrate(model, BATCHES)
    assert_unchanged(model.unused, before)
    assert model.used.num_batches_tracked.item() == 4


def test_norms_without_running_statistics_stay_without():
    layer = nn.BatchNorm1d(5, track_running_stats=False)
    recalibrate(layer, BATCHES)
    assert (layer.running_mean, layer.num_batches_tracked, layer.track_running_stats) == (None, None, False)
