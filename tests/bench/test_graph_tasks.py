import pickle

import pytest
import torch
from torch_geometric.data import Data

from ghn_pyg.bench.graph_tasks import LongRangeTask, ZINCTask, chain_graph, molecule_graph
from tests.bench.tiny import bench


def test_molecules_become_acyclic_graphs():
    """A ring of three atoms with a tail."""
    bonds = torch.tensor([[0, 1, 1, 2, 0, 2, 2, 3], [1, 0, 2, 1, 2, 0, 3, 2]])
    kinds = torch.tensor([1, 1, 2, 2, 1, 1, 3, 3])
    molecule = Data(x=torch.tensor([[7], [0], [2], [5]]), edge_index=bonds, edge_attr=kinds, y=torch.tensor([0.25]))
    graph = molecule_graph(molecule)
    assert graph.node_type.tolist() == [7, 29, 0, 29, 30, 2, 31, 5]
    assert graph.edge_index.t().tolist() == [[0, 1], [1, 2], [0, 3], [3, 5], [2, 4], [4, 5], [5, 6], [6, 7]]
    assert graph.distance.view(8, 8)[0].tolist() == [0, 1, 2, 1, 3, 2, 3, 4]
    assert graph.y.tolist() == [0.25]


def test_a_single_atom():
    lone = Data(x=torch.tensor([[3]]), edge_index=torch.empty(2, 0, dtype=torch.long),
                edge_attr=torch.empty(0, dtype=torch.long), y=torch.tensor([1.0]))  # fmt: skip
    assert molecule_graph(lone).node_type.tolist() == [3]


def write_zinc(folder, molecules):
    """Random molecules in the format of the real data set."""
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


def test_zinc(tmp_path):
    write_zinc(tmp_path / "ZINC", 12)
    task = ZINCTask(folder=str(tmp_path / "ZINC"), epochs=2, batch_size=5)
    figures = task.run(bench().ghn("ghn2"), 0, tmp_path)
    assert list(figures) == ["MAE"]
    assert 0 < figures["MAE"] < 50
    assert task.run(bench().ghn("ghn2"), 0, tmp_path) == figures


def test_chains():
    generator = torch.Generator().manual_seed(3)
    for _ in range(30):
        graph = chain_graph(5, 9, generator)
        assert (graph.edge_index[0] < graph.edge_index[1]).all()
        distance = graph.distance.view(graph.num_nodes, -1)
        assert 4 <= distance[0, -1] <= 8  # the last node ends the chain
        assert (distance[0, 1:] > 0).all()  # and the first begins it
        assert graph.y.tolist() == graph.node_type[:1].tolist()


@pytest.mark.slow
def test_the_long_range_task_separates_encoders():
    task = LongRangeTask(graphs=600, epochs=12, shortest=5, longest=12, learning_rate=3e-3)
    config = bench(hidden_channels=16)
    accuracy = {name: task.run(config.ghn(name), 0, None)["accuracy"] for name in ("gcn", "ghn3")}
    assert accuracy["gcn"] < 0.4
    assert accuracy["ghn3"] > 0.8
