import numpy as np
import pytest
import torch

from ghn_pyg.nn.blocks import Blocks, distance_matrices, to_numpy
from tests.properties import assert_close, assert_same_gradients

# --- blocks ----------------------------------------------------------------------------------------------------------

BATCHES = {
    "one graph": [7],
    "equal graphs": [5, 5, 5],
    "one block": [3, 16, 1],
    "several blocks": [3, 40, 17, 2, 128, 33],
    "large graphs": [130, 129, 130, 2],
    "graphs without nodes": [0, 3, 0, 0, 20, 0],
}


def places(sizes):
    """For each block the rows of its nodes, -1 for padding."""
    nodes = torch.arange(sum(sizes))
    found = []
    for block in Blocks.of_sizes(sizes):
        rows = block.split(nodes)
        found.append((rows if block.mask is None else rows.masked_fill(~block.mask, -1)).tolist())
    return found


def test_graphs_of_about_the_same_size_share_a_block():
    assert places([2, 3, 1]) == [[[0, 1, -1], [2, 3, 4], [5, -1, -1]]]
    assert [block.graphs for block in Blocks.of_sizes([16, 17, 1, 32, 33, 48])] == [[0, 2], [1, 3], [4, 5]]
    assert [block.graphs for block in Blocks.of_sizes([128, 129, 127, 130, 129])] == [[0, 2], [1, 4], [3]]
    assert [block.size for block in Blocks.of_sizes([11, 3, 29, 30])] == [11, 30]


def test_graphs_without_nodes_have_no_place():
    assert places([0, 2, 0, 1]) == [[[0, 1], [2, -1]]]
    assert Blocks.of(torch.tensor([1, 1, 3]), 3).sizes == [0, 2, 0, 1]


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES)
def test_splitting_and_joining(sizes):
    blocks = Blocks.of_sizes(sizes)
    x = torch.randn(sum(sizes), 2, 3, dtype=torch.float64, requires_grad=True)
    joined = blocks.join(blocks.split(x))
    assert torch.equal(joined, x)
    assert_same_gradients(joined, x * 1, [x])
    starts = np.cumsum([0, *sizes])
    for block, part in zip(blocks, blocks.split(x), strict=True):
        assert part.shape == (len(block.graphs), block.size, 2, 3)
        for graph, rows in zip(block.graphs, part, strict=True):
            assert torch.equal(rows[: sizes[graph]], x[starts[graph] : starts[graph + 1]])


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES)
def test_pairs(sizes):
    values = torch.randn(sum(size * size for size in sizes), 3)
    parts = values.split([size * size for size in sizes])
    blocks = Blocks.of_sizes(sizes)
    for block, bias in zip(blocks, blocks.biases(values), strict=True):
        pairs = block.split_pairs(values)
        for graph, found, biases in zip(block.graphs, pairs, bias, strict=True):
            size = sizes[graph]
            expected = parts[graph].view(size, size, 3)
            assert torch.equal(found[:size, :size], expected)
            assert torch.equal(biases[:, :size, :size], expected.permute(2, 0, 1))
            assert (biases[:, :, size:] == -torch.inf).all()
            assert biases[:, :, :size].isfinite().all()


@pytest.mark.parametrize("sizes", [[7], [5, 5, 5], [3, 19], [130, 2]])
def test_nothing_is_copied_where_graphs_stand_together(sizes):
    x, values = torch.randn(sum(sizes), 3), torch.randn(sum(size * size for size in sizes))
    blocks = Blocks.of_sizes(sizes)
    assert blocks.order is None
    for block in blocks:
        assert block.mask is None
        assert block.split(x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        assert block.split_pairs(values).untyped_storage().data_ptr() == values.untyped_storage().data_ptr()


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES)
def test_tokens_keep_graphs_together(sizes):
    blocks = Blocks.of_sizes(sizes)
    more = blocks.with_tokens()
    assert more.sizes == [size + 1 for size in sizes]
    empty = [graph for graph, size in enumerate(sizes) if not size]
    assert [block.graphs for block in more] == [block.graphs for block in blocks] + [empty] * bool(empty)
    assert [block.size for block in more] == [block.size + 1 for block in blocks] + [1] * bool(empty)
    x = torch.randn(sum(more.sizes), 2)
    assert torch.equal(more.join(more.split(x)), x)


def test_a_batch_is_its_sizes():
    batch = torch.tensor([0, 0, 0, 1, 2, 2])
    blocks = Blocks.of(batch, 6)
    assert blocks.sizes == [3, 1, 2]
    assert Blocks.of(blocks, 6) is blocks
    assert Blocks.of(None, 6).sizes == [6]


def test_batches_inside_transforms_of_functions():
    batch = torch.tensor([0, 0, 1])

    def function(x):
        blocks = Blocks.of(batch, 3)
        return sum(part.sum() for part in blocks.split(x * torch.ones(3, 1)))

    assert_close(torch.func.grad(function)(torch.tensor(2.0)), torch.tensor(4.0))  # padding repeats the first node


# --- distances -------------------------------------------------------------------------------------------------------


def test_blocks():
    blocks = distance_matrices(torch.arange(14), [2, 1, 3])
    assert [block.tolist() for block in blocks] == [[[0, 1], [2, 3]], [[4]], [[5, 6, 7], [8, 9, 10], [11, 12, 13]]]


def test_blocks_are_views():
    distance = torch.arange(13, dtype=torch.uint8)
    first, second = distance_matrices(distance, [3, 2])
    assert first.data_ptr() == distance.data_ptr()
    assert second.data_ptr() == distance.data_ptr() + 9
    assert second.dtype == torch.uint8


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
