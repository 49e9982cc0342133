import csv
import functools
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch_geometric.data import Batch, Data

from ghn_pyg.bench import property_prediction as properties
from ghn_pyg.bench.cost import CostTask, batch
from ghn_pyg.bench.graph_regression import GraphModel, LongRangeTask, ZINCTask, chain_graph, molecule_graph
from ghn_pyg.bench.parameter_prediction import ParameterTask
from ghn_pyg.bench.property_prediction import PropertyTask, correlation, embeddings
from ghn_pyg.bench.trained_networks import make_networks
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.models.encoders import ENCODERS, register_encoder
from ghn_pyg.models.ghn import GHN
from ghn_pyg.nn import GatedGNN, LastReadout, NodeMLP
from tests.bench.tiny import PARAMETERS, RECIPE, bench

CONFIG = bench()


def tuples(fields):
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


# --- parameters ------------------------------------------------------------------------------------------------------


def test_parameters(tmp_path):
    task = ParameterTask(**tuples(PARAMETERS))
    ghn = CONFIG.ghn("gcn")
    figures = task.run(ghn, 3, tmp_path / "parameters")
    assert list(figures) == ["test top-1", "deep top-1", "networks that ran"]
    assert figures["networks that ran"] == 1
    assert all(0 <= value <= 1 for value in figures.values())
    # Trained already: the second time only measures.
    (run,) = filter(Path.is_dir, (tmp_path / "ghns").iterdir())
    assert run.name.startswith("gcn-3-")
    log = (run / "log.csv").read_text()
    assert task.run(ghn, 3, tmp_path / "parameters") == figures
    assert (run / "log.csv").read_text() == log
    assert GHN.from_pretrained(run / "ghn").config.encoder == "gcn"


# --- properties ------------------------------------------------------------------------------------------------------


def test_properties(tmp_path, monkeypatch):
    monkeypatch.setattr(properties, "GRID", {"C": [1], "epsilon": [0.1]})
    monkeypatch.setattr(properties, "fit", lambda network, images, config, fabric, progress: progress(
        properties.Epoch(1, 0.5, 0.1, (float(next(network.parameters()).numel()), 2.0, 1.0))))  # fmt: skip
    task = PropertyTask(**tuples(RECIPE), networks=10, epochs=1)
    figures = task.run(CONFIG.ghn("mlp"), 0, tmp_path / "properties")
    assert list(figures) == ["accuracy τ", "accuracy on noise τ", "inference time τ", "convergence time τ"]
    assert all(-1 <= value <= 1 for value in figures.values())
    # What was measured is kept, and not measured again.
    assert len(list((tmp_path / "properties" / "networks").glob("*.json"))) == 20
    monkeypatch.setattr(properties, "properties", None)
    assert task.run(CONFIG.ghn("mlp"), 0, tmp_path / "properties") == figures


def test_what_a_network_is_measured_by():
    from ghn_pyg.data import load_images

    from ghn_pyg.families.deepnets.network import Network
    from ghn_pyg.finetuning.config import FitConfig

    images = load_images("digits", image_size=8)
    graph = DeepNets("val", image_size=8, width=8)[0]
    found = properties.properties(Network(graph.architecture, 10, 8), images, FitConfig(), 0.2)
    assert list(found) == list(properties.PROPERTIES)
    assert 0 <= found["accuracy on noise"] <= 1
    assert found["inference time"] > 0
    steps = 1442 // 64
    assert 0 < found["convergence time"] <= steps

    def diverge(*arguments, **options):
        raise FloatingPointError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(properties, "fit", diverge)
        failed = properties.properties(Network(graph.architecture, 10, 8), images, FitConfig(), 0.2)
    assert (failed["accuracy"], failed["accuracy on noise"]) == (0.1, 0.1)
    assert failed["convergence time"] == steps


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        ([2.3, 1.1, 0.4, 0.2, 0.1], 4),  # 0.32 is nine tenths of the way from log 10 to 0.1
        ([2.3, 2.2, 2.1, 2.0], 4),
        ([0.1] * 5, 1),
        ([2.3, 9.0, 7.0], 3),
        ([5.0] * 30 + [0.0] * 10, 32),  # means of two
    ],
)
def test_convergence_time(losses, steps):
    assert properties.convergence_time(losses, 10) == steps


def test_networks_that_were_trained_otherwise_are_trained_again(tmp_path, monkeypatch):
    from ghn_pyg.data import load_images

    trained = []
    monkeypatch.setattr(properties, "properties", lambda *arguments: trained.append(arguments) or {})
    images, graph = load_images("digits", image_size=8), DeepNets("val", image_size=8, width=8)[0]
    task = PropertyTask(networks=10, epochs=2)
    for _ in range(2):
        task.trained_network(graph, images, tmp_path)
    assert len(trained) == 1
    monkeypatch.setattr(properties, "FitConfig", functools.partial(properties.FitConfig, learning_rate=0.5))
    task.trained_network(graph, images, tmp_path)
    assert len(trained) == 2


def test_processes_divide_the_networks(tmp_path, monkeypatch):
    """One that another process is at is left for later, and its result is taken."""
    from ghn_pyg.data import load_images

    trained, noted = [], []
    monkeypatch.setattr(properties, "properties", lambda network, *rest: trained.append(network) or {"x": 3.0})
    images, task = load_images("digits", image_size=8), PropertyTask(networks=10, epochs=2, width=8)
    task.data("val", images, tmp_path / "theirs")
    first = min((tmp_path / "theirs").glob("*.json"))
    first.write_text(first.read_text().replace("3.0", "7.0"))
    (tmp_path / "ours").mkdir()
    busy = FileLock(tmp_path / "ours" / f"{first.stem}.lock")
    busy.acquire()
    trained.clear()

    def note(place):
        noted.append(place)
        if len(noted) == 9:  # the other process is done
            shutil.copy(first, tmp_path / "ours")
            busy.release()

    found = [values["x"] for _, values in task.data("val", images, tmp_path / "ours", note)]
    assert sorted(noted) == list(range(10))
    assert len(trained) == 9
    assert found == [7.0 if place == noted[-1] else 3.0 for place in range(10)]


def test_a_data_set_of_trained_networks(tmp_path, monkeypatch):
    monkeypatch.setattr(properties, "properties", lambda *arguments: dict.fromkeys(properties.PROPERTIES, 0.25))
    config = bench({"tags": {"kind": "properties", **RECIPE, "networks": 10}})
    (table,) = make_networks(config, tmp_path)
    with open(table, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[:2] == [["split", "position", *properties.PROPERTIES], ["val", "0", *["0.25"] * 4]]
    assert [(row[0], row[1]) for row in rows[1:]] == [(split, str(at)) for split in ("val", "test") for at in range(10)]
    assert table == tmp_path / "tags" / "networks.csv"
    assert len(list((tmp_path / "tags" / "networks").glob("*.json"))) == 20
    with pytest.raises(ValueError, match="expected a task of the kind properties, got long_range"):
        make_networks(CONFIG, tmp_path)


def test_ranks(monkeypatch):
    monkeypatch.setattr(properties, "GRID", {"C": [100], "gamma": [0.1], "epsilon": [0.05]})
    draw = np.random.default_rng(3)
    learn, rank = draw.normal(size=(60, 3)), draw.normal(size=(30, 3))
    assert correlation(learn, 1e-3 * learn[:, 0], rank, 7 * rank[:, 0]) > 0.8
    assert correlation(learn, learn[:, 0], rank, -rank[:, 0]) < -0.8
    assert correlation(learn, np.full(60, 0.1), rank, rank[:, 0]) == 0


def test_embeddings_of_networks():
    torch.manual_seed(3)
    ghn = GHN(CONFIG.ghn("gcn")).eval()
    graphs = [DeepNets("val", image_size=8, width=8)[position] for position in range(5)]
    found = embeddings(ghn, graphs, portion=2)
    assert found.shape == (5, 8)
    for graph, row in zip(graphs, found, strict=True):
        np.testing.assert_allclose(row, ghn.embed(graph).mean(0).detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(row, ghn.embed_graphs(graph).detach().numpy(), rtol=1e-4, atol=1e-5)


# --- graphs ----------------------------------------------------------------------------------------------------------


def test_molecules_become_acyclic_graphs():
    """A ring of three atoms with a tail."""
    bonds = torch.tensor([[0, 1, 1, 2, 0, 2, 2, 3], [1, 0, 2, 1, 2, 0, 3, 2]])
    kinds = torch.tensor([1, 1, 2, 2, 1, 1, 3, 3])
    molecule = Data(x=torch.tensor([[7], [0], [2], [5]]), edge_index=bonds, edge_attr=kinds, y=torch.tensor([0.25]))
    graph = molecule_graph(molecule)
    assert graph.node_type.tolist() == [7, 29, 0, 29, 30, 2, 31, 5]
    assert graph.edge_index.t().tolist() == [[0, 1], [1, 2], [0, 3], [3, 5], [2, 4], [4, 5], [5, 6], [6, 7]]
    assert (graph.edge_index[0] < graph.edge_index[1]).all()
    assert graph.distance.view(8, 8)[0].tolist() == [0, 1, 2, 1, 3, 2, 3, 4]
    assert graph.y.tolist() == [0.25]


def test_a_single_atom():
    lone = Data(x=torch.tensor([[3]]), edge_index=torch.empty(2, 0, dtype=torch.long),
                edge_attr=torch.empty(0, dtype=torch.long), y=torch.tensor([1.0]))  # fmt: skip
    assert molecule_graph(lone).node_type.tolist() == [3]


def zinc_files(folder, molecules):
    """Files of the format of the real data set."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    generator = torch.Generator().manual_seed(3)
    for part in ("train", "val", "test"):
        made = []
        for _ in range(molecules):
            atoms = int(torch.randint(3, 8, (), generator=generator))
            bonds = torch.zeros(atoms, atoms, dtype=torch.long)
            for atom in range(1, atoms):
                other = int(torch.randint(atom, (), generator=generator))
                bonds[atom, other] = bonds[other, atom] = int(torch.randint(1, 4, (), generator=generator))
            kinds = torch.randint(28, (atoms,), generator=generator)
            made.append({"atom_type": kinds, "bond_type": bonds, "logP_SA_cycle_normalized": kinds.float().mean()})
        with open(raw / f"{part}.pickle", "wb") as stream:
            pickle.dump(made, stream)
        (raw / f"{part}.index").write_text(",".join(str(position) for position in range(molecules)))


def test_zinc(tmp_path, monkeypatch):
    zinc_files(tmp_path / "ZINC", 12)
    task = ZINCTask(folder=str(tmp_path / "ZINC"), epochs=2, batch_size=5)
    figures = task.run(CONFIG.ghn("ghn2"), 0, tmp_path)
    assert list(figures) == ["MAE"]
    assert 0 < figures["MAE"] < 50
    assert task.run(CONFIG.ghn("ghn2"), 0, tmp_path) == figures


def test_chains():
    generator = torch.Generator().manual_seed(3)
    for _ in range(30):
        graph = chain_graph(5, 9, generator)
        edges = graph.edge_index
        assert (edges[0] < edges[1]).all()
        distance = graph.distance.view(graph.num_nodes, -1)
        assert 4 <= distance[0, -1] <= 8  # the last node ends the chain
        assert (distance[0, 1:] > 0).all()  # and the first begins it
        assert graph.y.tolist() == graph.node_type[:1].tolist()


def test_a_model_of_graphs():
    model = GraphModel(CONFIG.ghn("ghn2"), 4, 3, LastReadout())
    assert isinstance(model.encoder, GatedGNN)
    graphs = [chain_graph(3, 9, torch.Generator().manual_seed(seed)) for seed in range(3)]
    assert model(Batch.from_data_list(graphs)).shape == (3, 3)


@pytest.mark.slow
def test_the_long_range_task_tells_encoders_apart():
    task = LongRangeTask(graphs=600, epochs=12, shortest=5, longest=12, learning_rate=3e-3)
    config = bench(hidden_channels=16)
    found = {name: task.run(config.ghn(name), 0, None)["accuracy"] for name in ("gcn", "ghn3")}
    assert found["gcn"] < 0.4
    assert found["ghn3"] > 0.8


# --- cost ------------------------------------------------------------------------------------------------------------


def test_cost_of_ones_own_encoder(tmp_path):
    """Which the process that measures does not know."""
    register_encoder("mine", lambda config: NodeMLP(config.hidden_channels), layers=False)
    try:
        figures = CostTask(nodes=(5, 11), repeats=2, graphs=3).run(CONFIG.ghn("mine"), 0, tmp_path)
    finally:
        del ENCODERS["mine"]
    assert list(figures) == ["5 nodes, ms", "5 nodes, MB", "11 nodes, ms", "11 nodes, MB"]
    assert figures["5 nodes, ms"] > 0


def test_memory_of_large_graphs_is_told_from_that_of_small_ones(tmp_path):
    figures = CostTask(nodes=(64, 1024), repeats=1).run(CONFIG.ghn("ghn3"), 0, tmp_path)
    pairs = 1024**2
    # Two heads' biases and the columns of the table alone take 12 bytes for each pair.
    assert 12 * pairs / 1e6 < figures["1024 nodes, MB"] < 200 * pairs / 1e6
    assert figures["64 nodes, MB"] < figures["1024 nodes, MB"] / 4


def test_graphs_to_measure():
    x, edges, distance, vector = batch(7, 3, 5, seed=0)
    assert x.shape == (21, 5)
    assert distance.shape == (3 * 49,)
    assert vector.bincount().tolist() == [7, 7, 7]
    assert (edges[0] < edges[1]).all()
    assert (vector[edges[0]] == vector[edges[1]]).all()
