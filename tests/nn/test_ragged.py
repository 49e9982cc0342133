import numpy as np
import pytest
import torch

from ghn_pyg.nn.ragged import block_starts, distance_blocks, to_numpy


def test_starts():
    assert block_starts([3, 1, 5, 2]) == [0, 9, 10, 35]
    assert block_starts([7]) == [0]
    assert block_starts([]) == []


def test_blocks():
    blocks = distance_blocks(torch.arange(14), [2, 1, 3])
    assert [block.tolist() for block in blocks] == [[[0, 1], [2, 3]], [[4]], [[5, 6, 7], [8, 9, 10], [11, 12, 13]]]


def test_blocks_are_views():
    distance = torch.arange(13, dtype=torch.uint8)
    first, second = distance_blocks(distance, [3, 2])
    assert first.data_ptr() == distance.data_ptr()
    assert second.data_ptr() == distance.data_ptr() + 9
    assert second.dtype == torch.uint8


@pytest.mark.parametrize("sizes", [[3], [2, 2], [3, 2, 1]])
def test_sizes_that_do_not_fit(sizes):
    with pytest.raises(RuntimeError, match="split_with_sizes expects split_sizes to sum exactly to 13"):
        distance_blocks(torch.zeros(13), sizes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_arrays(dtype):
    tensor = torch.arange(6, dtype=dtype).view(2, 3)
    array = to_numpy(tensor.t())
    assert type(array) is np.ndarray
    assert array.dtype == str(dtype).removeprefix("torch.")
    assert array.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_arrays_inside_transforms_of_functions():
    tensor = torch.tensor([[2, 3], [5, 7]])

    def function(x):
        return x * to_numpy(tensor[1] + 1).tolist()[1]

    assert torch.func.grad(function)(torch.tensor(11.0)).item() == 8
