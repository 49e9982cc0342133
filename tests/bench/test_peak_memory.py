import torch

from ghn_pyg.bench.peak_memory import peak_memory


def test_memory_that_is_freed_again_counts():
    memory = peak_memory(lambda: torch.ones(40_000_000).sum())
    assert 150e6 < memory["over_baseline"] < 250e6
    assert memory["peak"] >= memory["baseline"] + 150e6
