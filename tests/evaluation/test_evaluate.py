import dataclasses
import logging
import sys

import pytest
import torch
from ghn_pyg.data import load_images
from torch import nn

from ghn_pyg import GHN, GHNConfig, batch_statistics, from_module, load_prediction
from ghn_pyg.evaluation import evaluate as module
from ghn_pyg.evaluation.evaluate import evaluate
from ghn_pyg.evaluation.subjects import Subject, deepnets_subjects, torchvision_subjects
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.finetuning.config import FitConfig
from ghn_pyg.finetuning.init import start_from

TINY = GHNConfig(hidden_channels=8, max_channels=8, max_kernel_size=5, num_classes=10, layers=1, heads=2)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", image_size=8)


@pytest.fixture(scope="module")
def ghn():
    torch.manual_seed(3)
    return GHN(TINY)


@pytest.fixture(scope="module")
def subjects():
    return deepnets_subjects(DeepNets("test", image_size=8, width=8)[:3])


def without_time(report):
    return [(row.name, row.top1, row.top5, row.total_norm, row.failure) for row in report.rows]


def test_rows_are_what_a_slow_reference_gives(ghn, subjects, digits):
    report = evaluate(ghn, subjects[:1], digits, seed=5)
    row = report.rows[0]
    network = subjects[0].build().eval()
    graph = subjects[0].graph(network)
    prediction = ghn.predict(graph)
    load_prediction(network, prediction)
    order = torch.randperm(355, generator=torch.Generator().manual_seed(5))
    right = {1: 0, 5: 0}
    with batch_statistics(network), torch.no_grad():
        for start in range(0, 355, 64):
            images, labels = digits.test.batch(order[start : start + 64])
            ranks = network(images).argsort(1, descending=True)
            for top in right:
                right[top] += int((ranks[:, :top] == labels.unsqueeze(1)).sum())
    assert (row.top1, row.top5) == pytest.approx((right[1] / 355, right[5] / 355))
    assert row.name == "test/0"
    assert row.nodes == graph.num_nodes
    assert row.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert row.total_norm == pytest.approx(prediction.total_norm())
    assert row.seconds > 0
    assert row.failure is None


def test_the_same_twice_and_whatever_else_is_drawn(ghn, subjects, digits):
    state = torch.get_rng_state()
    first = evaluate(ghn, subjects, digits, noise=0.08)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert without_time(evaluate(ghn, subjects, digits, noise=0.08)) == without_time(first)


def test_noise_and_statistics_make_a_difference(ghn, digits):
    subjects = torchvision_subjects(["resnet18"], 10, 8)
    plain, noisy, recalibrated = (
        evaluate(ghn, subjects, digits, **options) for options in ({}, {"noise": 2.0}, {"statistics": "recalibrated"})
    )
    assert plain.coverage == noisy.coverage == recalibrated.coverage == 1
    assert len({report.rows[0].total_norm for report in (plain, noisy, recalibrated)}) == 1
    found = [(report.rows[0].top1, report.rows[0].top5) for report in (plain, noisy, recalibrated)]
    assert found[1] != found[0] != found[2]
    assert [report.settings["noise"] for report in (plain, noisy)] == [0, 2]


def test_initial_parameters_for_comparison(subjects, digits):
    report = evaluate(None, subjects, digits)
    assert report.settings["parameters"] == "initial"
    assert [row.total_norm for row in report.rows] == [None] * 3
    assert report.coverage == 1
    assert without_time(evaluate(None, subjects, digits)) == without_time(report)


def test_initial_parameters_do_not_depend_on_the_place_in_the_list(subjects, digits):
    """And no network with one seed has those of another with the next seed."""
    whole, alone = evaluate(None, subjects, digits), evaluate(None, subjects[2:], digits)
    assert without_time(alone)[0] == without_time(whole)[2]
    twins = [dataclasses.replace(subjects[0], name=name) for name in ("one", "other")]
    found = [without_time(evaluate(None, twins, digits, seed=seed)) for seed in (0, 1)]
    assert len({row[1:3] for rows in found for row in rows}) == 4


def test_a_network_that_is_right_every_time(digits):
    """The labels' own images as weights: the nearest of a few prototypes, on images that it has seen."""

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.known, self.labels = digits.test.batch(range(355))

        def forward(self, images):
            nearest = torch.cdist(images.flatten(1), self.known.flatten(1)).argmin(1)
            return nn.functional.one_hot(self.labels[nearest], 10).float()

    report = evaluate(None, [Subject("sure", 10, Sure, lambda _: DeepNets("val", width=8)[0])], digits)
    assert (report.mean("top1"), report.mean("top5")) == (1, 1)


@pytest.mark.parametrize("place", ["build", "graph", "forward"])
def test_failures_are_listed(ghn, subjects, digits, place, caplog):
    class Broken(nn.Module):
        def forward(self, images):
            raise AssertionError("no forward")

    def fail(*_):
        raise KeyError("no luck")

    broken = Subject(
        "broken",
        10,
        fail if place == "build" else Broken if place == "forward" else subjects[0].build,
        fail if place == "graph" else lambda _: subjects[0].graph(subjects[0].build()),
    )
    seen = []
    with caplog.at_level(logging.DEBUG, "ghn_pyg"):
        report = evaluate(
            None if place == "forward" else ghn, [subjects[0], broken, subjects[1]], digits, progress=seen.append
        )
    assert seen == report.rows
    assert [row.failure is None for row in report.rows] == [True, False, True]
    assert list(report.failures) == ["broken"]
    assert ("no forward" if place == "forward" else "KeyError: 'no luck'") in report.failures["broken"]
    assert report.rows[1].top1 is None
    assert "Traceback" in caplog.text


def test_another_number_of_classes(ghn, subjects, digits):
    def never():
        raise AssertionError("something ran")

    other = GHN(GHNConfig(**{**TINY.to_dict(), "num_classes": 7}))
    with pytest.raises(ValueError, match=r"the GHN is for 7 classes and digits has 10.*chance; train one"):
        evaluate(other, [Subject("a", 10, never)], digits)
    with pytest.raises(ValueError, match=r"^b is for 1000 classes and digits has 10"):
        evaluate(ghn, [Subject("a", 10, never), Subject("b", 1000, never)], digits)
    assert evaluate(other, subjects[:1], digits, other_classes=True).coverage == 1


@pytest.mark.parametrize("options", [{"noise": -0.1}, {"noise": torch.nan}, {"batch_size": 1}])
def test_options_out_of_range(ghn, digits, options):
    with pytest.raises(ValueError, match="expected noise of at least 0 and batch_size of at least 2"):
        evaluate(ghn, [], digits, **options)


def test_without_torchmetrics(ghn, digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(ImportError, match=r'pip install "ghn_pyg\[train\]"'):
        evaluate(ghn, [], digits)


def test_networks_without_a_small_version_fail_by_themselves(ghn, digits):
    report = evaluate(ghn, torchvision_subjects(["squeezenet1_1"], 10, 8), digits)
    assert "has no version for small inputs" in report.failures["squeezenet1_1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistics": "run"}, "statistics expected one of batch, recalibrated, running, got 'run'"),
        ({"statistics": "running"}, "statistics expected batch or recalibrated, as networks that were not trained"),
        ({"training": FitConfig(batch_size=2000)}, "batch_size must not exceed the 1442 training images, got 2000"),
    ],
)
def test_wrong_options_are_no_failures_of_networks(ghn, digits, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(ghn, [], digits, **options)


def test_networks_that_are_trained(digits):
    def build():
        return nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU(), nn.Flatten(), nn.Linear(7 * 36, 10))

    subject = Subject("small", 10, build, lambda network: from_module(network, torch.zeros(1, 3, 8, 8)))
    plain, trained = (evaluate(None, [subject], digits, training=training) for training in (None, FitConfig(epochs=2)))
    assert trained.settings["training"]["epochs"] == 2
    assert trained.rows[0].top1 > 0.8 > 0.4 > plain.rows[0].top1


def test_training_from_a_prediction_starts_as_finetuning_does(ghn, subjects, digits, monkeypatch):
    """With the noise that tells equal channels apart; a prediction that is measured as it is has none."""
    starts = []

    def keep(network, *_, **__):
        starts.append({name: parameter.clone() for name, parameter in network.named_parameters()})

    monkeypatch.setattr(module, "fit", keep)
    evaluate(ghn, subjects[:1], digits, training=FitConfig(), seed=5)
    network, plain = subjects[0].build(), subjects[0].build()
    start_from(ghn, network, subjects[0].graph(network), seed=5)
    load_prediction(plain, ghn.predict(subjects[0].graph(plain), seed=5))
    assert all(torch.equal(starts[0][name], parameter) for name, parameter in network.named_parameters())
    assert any(not torch.equal(starts[0][name], parameter) for name, parameter in plain.named_parameters())
