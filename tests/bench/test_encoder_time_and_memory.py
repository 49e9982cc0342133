from ghn_pyg.bench.encoder_time_and_memory import CostTask, random_graphs
from ghn_pyg.models.encoders import ENCODERS, register_encoder
from ghn_pyg.nn import NodeMLP
from tests.bench.tiny import bench


def test_a_registered_encoder(tmp_path):
    """The process that measures it does not know it."""
    register_encoder("mine", lambda config: NodeMLP(config.hidden_channels), layers=False)
    try:
        figures = CostTask(nodes=(5, 11), repeats=2, graphs=3).run(bench().ghn("mine"), 0, tmp_path)
    finally:
        del ENCODERS["mine"]
    assert list(figures) == ["5 nodes, ms", "5 nodes, MB", "11 nodes, ms", "11 nodes, MB"]
    assert figures["5 nodes, ms"] > 0


def test_large_graphs_take_more_memory(tmp_path):
    figures = CostTask(nodes=(64, 1024), repeats=1).run(bench().ghn("ghn3"), 0, tmp_path)
    pairs = 1024**2
    # Biases of two heads and indices into their table take 12 bytes for each pair of nodes.
    assert 12 * pairs / 1e6 < figures["1024 nodes, MB"] < 200 * pairs / 1e6
    assert figures["64 nodes, MB"] < figures["1024 nodes, MB"] / 4


def test_random_graphs():
    x, edge_index, distance, batch = random_graphs(7, 3, 5, seed=0)
    assert x.shape == (21, 5)
    assert distance.shape == (3 * 49,)
    assert batch.bincount().tolist() == [7, 7, 7]
    assert (edge_index[0] < edge_index[1]).all()
    assert (batch[edge_index[0]] == batch[edge_index[1]]).all()
