from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ghn_pyg.bench import property_prediction
from ghn_pyg.bench.property_prediction import PROPERTIES, PropertyTask, ranking_tau
from ghn_pyg.data import load_images
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.families.deepnets.network import Network
from ghn_pyg.finetuning import FitConfig
from tests.bench.tiny import RECIPE, bench


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", image_size=8)


@pytest.fixture
def measured(monkeypatch):
    """In place of training, the properties of a network are its number of parameters; the calls are noted."""
    calls = []

    def properties(network, *_):
        calls.append(sum(parameter.numel() for parameter in network.parameters()))
        return dict.fromkeys(PROPERTIES, float(calls[-1]))

    monkeypatch.setattr(property_prediction, "properties", properties)
    return calls


@pytest.fixture
def small_grid(monkeypatch):
    monkeypatch.setattr(property_prediction, "GRID", {"C": [100], "gamma": [0.1], "epsilon": [0.05]})


@pytest.mark.usefixtures("small_grid")
def test_networks_are_ranked_by_their_embeddings(tmp_path, measured):
    task = PropertyTask(**RECIPE, networks=10, epochs=1)
    figures = task.run(bench().ghn("mlp"), 0, tmp_path / "properties")
    assert list(figures) == ["accuracy τ", "accuracy on noise τ", "inference time τ", "convergence time τ"]
    assert all(-1 <= value <= 1 for value in figures.values())
    assert len(measured) == 20
    assert task.run(bench().ghn("mlp"), 0, tmp_path / "properties") == figures
    assert len(measured) == 20


def test_processes_with_one_folder_divide_the_networks(tmp_path, measured, digits):
    task = PropertyTask(networks=11)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(task.trained_networks, "val", digits, tmp_path) for _ in range(2)]
        first, second = ([values["accuracy"] for _, values in run.result()] for run in runs)
    assert len(measured) == 11
    assert first == second
    assert sorted(first) == sorted(measured)


def test_networks_with_other_settings_are_trained_again(tmp_path, measured, digits):
    graph = DeepNets("val", image_size=8, width=8)[0]
    for settings in ({"epochs": 2}, {"epochs": 2}, {"epochs": 3}, {"noise": 0.1}):
        PropertyTask(networks=10, **settings).trained_network(graph, digits, tmp_path)
    assert len(measured) == 3


@pytest.mark.parametrize("diverges", [False, True])
def test_properties_of_a_network(digits, diverges):
    architecture = DeepNets("val", image_size=8, width=8)[0].architecture
    training = FitConfig(learning_rate=1e30, clip=0.0) if diverges else FitConfig()
    values = property_prediction.properties(Network(architecture, 10, 8), digits, training, 0.2)
    assert list(values) == list(PROPERTIES)
    assert (values["accuracy"] == values["accuracy on noise"] == 0.1) == diverges
    assert values["inference time"] > 0
    steps = 1442 // 64
    assert values["convergence time"] == steps if diverges else 0 < values["convergence time"] <= steps


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        ([2.3, 1.1, 0.4, 0.2, 0.1], 4),  # 0.32 is 90 % of the way from log 10 to 0.1
        ([2.3, 2.2, 2.1, 2.0], 4),
        ([0.1] * 5, 1),
        ([2.3, 9.0, 7.0], 3),
        ([5.0] * 30 + [0.0] * 10, 32),  # a moving average of two
    ],
)
def test_convergence_time(losses, steps):
    assert property_prediction.convergence_time(losses, 10) == steps


@pytest.mark.usefixtures("small_grid")
def test_rankings():
    draw = np.random.default_rng(3)
    train, test = draw.normal(size=(60, 3)), draw.normal(size=(30, 3))
    assert ranking_tau(train, 1e-3 * train[:, 0], test, 7 * test[:, 0]) > 0.8
    assert ranking_tau(train, train[:, 0], test, -test[:, 0]) < -0.8
    assert ranking_tau(train, np.full(60, 0.1), test, test[:, 0]) == 0
