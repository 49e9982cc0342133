import dataclasses
import logging

import pytest
import torch
from torch import nn

from ghn_pyg import GHN, GHNConfig, batch_statistics, from_module, load_prediction
from ghn_pyg.data import ImagesError, load_images
from ghn_pyg.evaluation import Subject, deepnets_subjects, evaluate, torchvision_subjects
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.finetuning import FitConfig, start_from

TINY = {"hidden_channels": 8, "max_channels": 8, "max_kernel_size": 5, "layers": 1, "heads": 2}


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", image_size=8)


@pytest.fixture(scope="module")
def ghn():
    torch.manual_seed(3)
    return GHN(GHNConfig(**TINY, num_classes=10))


@pytest.fixture(scope="module")
def networks():
    return deepnets_subjects(DeepNets("test", image_size=8, width=8)[:3])


def without_time(report):
    return [(row.name, row.top1, row.top5, row.total_norm, row.failure) for row in report.rows]


def test_a_row_against_a_slow_reference(ghn, networks, digits):
    row = evaluate(ghn, networks[:1], digits, seed=5, statistics="batch").rows[0]
    network = networks[0].build().eval()
    graph = networks[0].graph(network)
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
    assert (row.name, row.nodes, row.failure) == ("test/0", graph.num_nodes, None)
    assert row.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert row.total_norm == pytest.approx(prediction.total_norm())
    assert row.seconds > 0


@pytest.mark.parametrize("predicted", [True, False])
def test_results_depend_on_the_seed_alone(ghn, networks, digits, predicted):
    """Not on the global generator, which is left as it is, nor on other networks in the list."""
    state = torch.get_rng_state()
    model = ghn if predicted else None
    first = evaluate(model, networks[:2], digits, noise=0.08)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert without_time(evaluate(model, networks[1:2], digits, noise=0.08)) == without_time(first)[1:]
    assert first.coverage == 1
    assert first.settings["parameters"] == ("predicted" if predicted else "initial")
    assert [row.total_norm is not None for row in first.rows] == [predicted] * 2


def test_initial_parameters_differ_between_names_and_seeds(networks, digits):
    same = [dataclasses.replace(networks[0], name=name) for name in ("one", "other")]
    rows = [without_time(evaluate(None, same, digits, seed=seed)) for seed in (0, 1)]
    assert len({row[1:3] for part in rows for row in part}) == 4


@pytest.mark.parametrize("option", [{"noise": 2.0}, {"statistics": "batch"}])
def test_noise_and_statistics_change_the_accuracy(ghn, digits, option):
    subjects = torchvision_subjects(["shufflenet_v2_x0_5"], 10, 8)
    plain, other = (evaluate(ghn, subjects, digits, **options) for options in ({}, option))
    assert plain.rows[0].total_norm == other.rows[0].total_norm
    assert (plain.rows[0].top1, plain.rows[0].top5) != (other.rows[0].top1, other.rows[0].top5)
    assert other.settings == {**plain.settings, **option}


@pytest.mark.parametrize("place", ["build", "graph", "forward"])
def test_failures_are_listed(ghn, networks, digits, place, caplog):
    class Broken(nn.Module):
        def forward(self, images):
            raise KeyError("no luck")

    def fail(*_):
        raise KeyError("no luck")

    options = {"build": {"build": fail}, "graph": {"graph": fail}, "forward": {"build": Broken}}[place]
    graph = networks[0].graph(networks[0].build())
    broken = dataclasses.replace(networks[0], name="broken", **{"graph": lambda _: graph, **options})
    reported = []
    with caplog.at_level(logging.DEBUG, "ghn_pyg"):
        model = None if place == "forward" else ghn
        report = evaluate(model, [networks[0], broken, networks[1]], digits, progress=reported.append)
    assert reported == report.rows
    assert report.failures == {"broken": "KeyError: 'no luck'"}
    assert report.rows[1].top1 is None
    assert "Traceback" in caplog.text


def test_an_image_that_cannot_be_read_is_an_error_once(ghn, networks, digits):
    class Damaged:
        def __len__(self):
            return 355

        def batch(self, numbers):
            raise ImagesError("cannot read ants/3.png")

    rows = []
    with pytest.raises(ImagesError, match=r"cannot read ants/3\.png"):
        evaluate(ghn, networks, dataclasses.replace(digits, test=Damaged()), progress=rows.append)
    assert rows == []


def test_another_number_of_classes(ghn, networks, digits):
    def never():
        raise AssertionError("something ran")

    other = GHN(GHNConfig(**TINY, num_classes=7))
    with pytest.raises(ValueError, match=r"the GHN is for 7 classes and digits has 10.*chance; train one"):
        evaluate(other, [Subject("a", 10, never)], digits)
    with pytest.raises(ValueError, match=r"^b is for 1000 classes and digits has 10"):
        evaluate(ghn, [Subject("a", 10, never), Subject("b", 1000, never)], digits)
    assert evaluate(other, networks[:1], digits, other_classes=True).coverage == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -0.1}, "noise of at least 0"),
        ({"noise": torch.nan}, "noise of at least 0"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"batch_size": 1, "statistics": "batch"}, "batch_size of at least 2"),
        ({"statistics": "run"}, "statistics expected one of batch, recalibrated, running, got 'run'"),
        ({"statistics": "running"}, "only trained networks have running statistics"),
        ({"training": FitConfig(batch_size=2000)}, "batch_size .* 1442 training images, got 2000"),
    ],
)
def test_wrong_options(ghn, digits, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(ghn, [], digits, **options)


def test_networks_that_are_trained(digits):
    def build():
        return nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU(), nn.Flatten(), nn.Linear(7 * 36, 10))

    network = Subject("small", 10, build, lambda network: from_module(network, torch.zeros(1, 3, 8, 8)))
    plain, trained = (evaluate(None, [network], digits, training=training) for training in (None, FitConfig(epochs=2)))
    assert trained.settings["training"]["epochs"] == 2
    assert trained.rows[0].top1 > 0.8 > 0.4 > plain.rows[0].top1


@pytest.mark.parametrize("training", [None, FitConfig(learning_rate=0.0, batch_size=256)])
def test_training_starts_as_finetuning_does(ghn, networks, digits, training):
    """With noise on predicted parameters, which are not changed if they are measured without training."""
    built = [networks[0].build()]
    subject = dataclasses.replace(networks[0], build=lambda: built[0])
    evaluate(ghn, [subject], digits, training=training, seed=5)
    started, plain = networks[0].build(), networks[0].build()
    start_from(ghn, started, subject.graph(started), seed=5)
    load_prediction(plain, ghn.predict(subject.graph(plain), seed=5))
    expected, other = (plain, started) if training is None else (started, plain)
    assert all(map(torch.equal, built[0].parameters(), expected.parameters()))
    assert not all(map(torch.equal, built[0].parameters(), other.parameters()))


class Guess(nn.Module):
    """Every image has one label."""

    def __init__(self, label):
        super().__init__()
        self.label = nn.Parameter(torch.tensor(label), requires_grad=False)

    def forward(self, images):
        return nn.functional.one_hot(self.label, 10).float().expand(len(images), -1)


def guess(label):
    return Subject(f"guess {label}", 10, lambda: Guess(label), lambda _: DeepNets("val", width=8)[0])


def test_the_mean_is_the_mean_and_not_the_count():
    # There are 35, 36 and 34 test images of the digits 0, 1 and 8.
    report = evaluate(None, [guess(label) for label in (0, 1, 8)], load_images("digits", image_size=4))
    assert report.mean("top1") == pytest.approx(105 / 355 / 3)
    assert report.std("top1") == pytest.approx(1 / 355)
    assert report.coverage == 1
