import pytest
import torch
from torch import nn

from ghn_pyg.utils.memory_guard import CheckedLayers, check_memory


def test_only_the_memory_of_the_cpu_is_checked():
    check_memory(1 << 60, "a tensor", device="meta")
    with pytest.raises(MemoryError, match=r"a tensor needs 1,152,921,504\.6 GB, [\d.]+ GB are free; use a machine"):
        check_memory(1 << 60, "a tensor")


def test_layers_are_checked_before_they_take_memory():
    with CheckedLayers():
        assert nn.Linear(3, 5).weight.shape == (5, 3)
        assert nn.Linear(1 << 24, 1 << 24, device="meta").weight.is_meta
        with torch.device("meta"):
            assert nn.Embedding(1 << 24, 1 << 24).weight.is_meta
        with pytest.raises(MemoryError, match=r"a tensor of shape \(16777216, 1048576\) needs 70,368\.7 GB"):
            nn.Embedding(1 << 24, 1 << 20)
