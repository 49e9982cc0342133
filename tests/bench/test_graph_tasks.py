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


def write_zinc(folder, molecules):
    """Random molecules in the format of the real data set."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(3)
    for part in ("train", "val", "test"):
        data = []
        for atoms in range(3, 3 + molecules):
            types = torch.randint(28, (atoms,), generator=generator)
            bonds = torch.randint(1, 4, (atoms - 1,), generator=generator).diag(1)
            data.append(
                {"atom_type": types, "bond_type": bonds + bonds.t(), "logP_SA_cycle_normalized": types.sum() / 9}
            )
        (folder / f"{part}.pickle").write_bytes(pickle.dumps(data))
        (folder / f"{part}.index").write_text(",".join(map(str, range(molecules))))


def test_zinc(tmp_path):
    write_zinc(tmp_path / "ZINC" / "raw", 12)
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
