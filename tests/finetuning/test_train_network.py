import copy
import logging
import math

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from ghn_pyg.data import load_images
from ghn_pyg.finetuning import FitConfig, fit
from ghn_pyg.finetuning.train_network import fit_loss, make_optimizer
from ghn_pyg.training.fabric import make_fabric

logging.getLogger("lightning_fabric").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", image_size=8)


def network(seed=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU(), nn.Flatten(), nn.Linear(7 * 36, 10))


def trained(digits, **changes):
    torch.set_num_threads(1)
    epochs = []
    one = fit(network(), digits, FitConfig(**changes), fabric=make_fabric(device="cpu"), progress=epochs.append)
    return one, epochs


def test_training_learns(digits):
    one, epochs = trained(digits, epochs=2)
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert epochs[1].loss < epochs[0].loss < math.log(10)
    assert not one.training
    assert one[1].num_batches_tracked == 44
    images, labels = digits.test.batch(range(355))
    assert (one(images).argmax(1) == labels).float().mean() > 0.85


def test_the_same_again_and_other_random_numbers_do_not_matter(digits):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, _ = trained(digits, mixup=0.2, cutmix=1.0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    other, _ = trained(digits, mixup=0.2, cutmix=1.0)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    third, _ = trained(digits, mixup=0.2, cutmix=1.0, seed=5)
    assert not torch.equal(one[0].weight, third[0].weight)


@pytest.mark.parametrize("changes", [
    {"optimizer": "adamw", "learning_rate": 1e-3}, {"optimizer": "lamb", "learning_rate": 8e-3}, {"loss": "binary"},
    {"mixup": 0.5}, {"cutmix": 0.5}, {"randaugment": 9}, {"label_smoothing": 0.1}, {"warmup_epochs": 0.5},
    {"cutout": 3}, {"weight_decay": 0.1}, {"clip": 0.01},
], ids=str)  # fmt: skip
def test_options_have_an_effect(digits, changes):
    before, plain = network().state_dict(), trained(digits)[0].state_dict()
    one, (epoch,) = trained(digits, **changes)
    assert math.isfinite(epoch.loss)
    for name, value in one.state_dict().items():
        if value.dim() > 1:
            assert not torch.equal(value, before[name])
            assert not torch.equal(value, plain[name])


def test_randaugment_gets_pixels(digits, monkeypatch):
    class Identity:
        def __init__(self, magnitude):
            assert magnitude == 7

        def __call__(self, image):
            assert (image.dtype, image.shape) == (torch.uint8, (3, 8, 8))
            return image

    monkeypatch.setattr(v2, "RandAugment", Identity)
    weights, plain = (trained(digits, **changes)[0].state_dict() for changes in ({"randaugment": 7}, {}))
    torch.testing.assert_close(weights, plain, rtol=1e-3, atol=1e-4)


def test_a_callback_may_evaluate(digits):
    one = network()
    config = FitConfig(epochs=3)
    fit(one, digits, config, fabric=make_fabric(device="cpu"), progress=lambda _: one.eval())
    assert one[1].num_batches_tracked == 66


def test_a_frozen_parameter_stays(digits):
    one = network()
    one[0].weight.requires_grad_(False)
    before = one[0].weight.clone()
    fit(one, digits, FitConfig(), fabric=make_fabric(device="cpu"))
    assert torch.equal(one[0].weight, before)


def test_losses_that_are_not_finite(digits):
    one = network()
    with torch.no_grad():
        one[4].bias[3] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite in epoch 1; lower the learning rate"):
        fit(one, digits, FitConfig(epochs=3), fabric=make_fabric(device="cpu"))


class Auxiliary(nn.Module):
    """As GoogLeNet gives logits."""

    def __init__(self):
        super().__init__()
        self.main, self.other = network(), network()

    def forward(self, x):
        return (self.main(x), None, x, self.other(x)) if self.training else self.main(x)


def test_auxiliary_classifiers_are_not_trained(digits):
    model, alone = Auxiliary(), network()
    before = copy.deepcopy(dict(model.other.named_parameters()))
    for one in (model, alone):
        fit(one, digits, FitConfig(epochs=1), fabric=make_fabric(device="cpu"))
    torch.testing.assert_close(model.main.state_dict(), alone.state_dict(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(dict(model.other.named_parameters()), before, rtol=0, atol=0)


def test_auxiliary_classifiers_are_trained_with_a_weight(digits):
    """Without momentum or clipping, that of a network of its own is the weight of its gradient."""
    model, alone = Auxiliary(), network()
    plain = {"clip": 0.0, "weight_decay": 0.0, "batch_size": 1442}  # one step
    fit(model, digits, FitConfig(auxiliary=0.5, learning_rate=0.25, **plain), fabric=make_fabric(device="cpu"))
    fit(alone, digits, FitConfig(learning_rate=0.125, **plain), fabric=make_fabric(device="cpu"))
    torch.testing.assert_close(dict(model.other.named_parameters()), dict(alone.named_parameters()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auxiliary": 0.4}, "auxiliary expected 0 for a network without"),
        ({"drop_path": 0.1}, "drop_path expected none"),
    ],
)
def test_what_a_network_lacks(digits, changes, message):
    one = network()
    before = copy.deepcopy(one.state_dict())
    with pytest.raises(ValueError, match=message):
        fit(one, digits, FitConfig(**changes), fabric=make_fabric(device="cpu"))
    torch.testing.assert_close(one.state_dict(), before, rtol=0, atol=0)


def test_a_frozen_network(digits):
    with pytest.raises(ValueError, match="all are frozen"):
        fit(network().requires_grad_(False), digits, FitConfig(), fabric=make_fabric(device="cpu"))


def test_logits_by_name(digits):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.main = network()

        def forward(self, x):
            return {"logits": self.main(x), "features": x}

    named, alone = Named(), network()
    for one in (named, alone):
        fit(one, digits, FitConfig(), fabric=make_fabric(device="cpu"))
    torch.testing.assert_close(named.main.state_dict(), alone.state_dict(), rtol=0, atol=0)


def test_a_batch_that_is_too_large(digits):
    with pytest.raises(ValueError, match="batch_size must not exceed the 1442 training images, got 2048"):
        fit(network(), digits, FitConfig.recipe("timm"), fabric=make_fabric(device="cpu"))


def test_losses():
    logits, labels = torch.tensor([[0.0, 2, -1], [1, 0, 3]]), torch.tensor([1, 0])
    shares = torch.tensor([[0.0, 1, 0], [1, 0, 0]])
    for config in (FitConfig(label_smoothing=0.3), FitConfig(loss="binary", label_smoothing=0.3)):
        torch.testing.assert_close(fit_loss(logits, labels, config), fit_loss(logits, shares, config))
    smooth = 0.7 * shares + 0.1
    expected = -(smooth * logits.sigmoid().log() + (1 - smooth) * (-logits).sigmoid().log()).mean()
    torch.testing.assert_close(fit_loss(logits, labels, FitConfig(loss="binary", label_smoothing=0.3)), expected)


def test_vectors_have_no_weight_decay():
    optimizer = make_optimizer(network(), FitConfig(weight_decay=0.5))
    decays = {
        parameter.dim(): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]
    }
    assert decays == {4: 0.5, 2: 0.5, 1: 0.0}
    assert optimizer.defaults["nesterov"]


def test_gradients_are_clipped_as_the_configuration_says():
    """LAMB would clip them to a norm of 1 by itself."""
    optimizer = make_optimizer(network(), FitConfig(optimizer="lamb"))
    assert [group["max_grad_norm"] for group in optimizer.param_groups] == [None, None]
    assert FitConfig.recipe("timm").clip == 1


def test_a_missing_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm.optim", None)
    with pytest.raises(ImportError, match="LAMB need timm"):
        make_optimizer(network(), FitConfig(optimizer="lamb"))
