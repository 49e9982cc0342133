from ghn_pyg.bench.encoder_time_and_memory import CostTask, random_graphs
from ghn_pyg.models.encoders import ENCODERS, register_encoder
from tests.bench.tiny import bench


def test_time_and_memory_of_a_registered_encoder(tmp_path):
    """The new process, which measures it, does not know its name."""
    register_encoder("mine", ENCODERS["ghn3"].build, heads=True)
    try:
        figures = CostTask(nodes=(64, 1024), repeats=1).run(bench().ghn("mine"), 0, tmp_path)
    finally:
        del ENCODERS["mine"]
    assert list(figures) == ["64 nodes, ms", "64 nodes, MB", "1024 nodes, ms", "1024 nodes, MB"]
    assert 0 < figures["64 nodes, ms"] < figures["1024 nodes, ms"]
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
