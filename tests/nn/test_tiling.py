import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghn_pyg.nn.tiling import tile_
from tests.properties import assert_close, assert_same_gradients


def reference(shape, block):
    """By index: out[a, b] = block[a mod o, b mod i]."""
    out = torch.empty(shape, dtype=block.dtype)
    rows = [a % block.shape[0] for a in range(shape[0])]
    if len(shape) == 1:
        return torch.stack([block[a] for a in rows]) if rows else out
    for a, b in itertools.product(range(shape[0]), range(shape[1])):
        out[a, b] = block[a % block.shape[0], b % block.shape[1]]
    return out


def numbered(*shape):
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape)


PAIRS = [
    ((7,), (3,)), ((6,), (3,)), ((3,), (3,)), ((2,), (3,)), ((1,), (5,)), ((11,), (1,)),
    ((7, 11), (3, 5)), ((6, 10), (3, 5)), ((6, 11), (3, 5)), ((7, 10), (3, 5)), ((3, 5), (3, 5)), ((2, 3), (5, 7)),
    ((2, 11), (5, 3)), ((11, 2), (3, 5)), ((1, 1), (3, 5)), ((13, 1), (3, 1)), ((1, 13), (1, 3)), ((5, 7), (1, 1)),
    ((7, 11, 2), (3, 5, 2)), ((2, 3, 5), (3, 5, 5)),
    ((7, 11, 2, 3), (3, 5, 2, 3)), ((13, 1, 3, 3), (5, 1, 3, 3)), ((7, 5, 1, 1), (7, 2, 1, 1)),
    ((7, 11, 2, 3, 5), (3, 5, 2, 3, 5)), ((3, 7, 1, 2, 1), (2, 9, 1, 2, 1)),
]  # fmt: skip
EACH = pytest.mark.parametrize(("shape", "block"), PAIRS, ids=str)


@EACH
def test_index_arithmetic_agrees(shape, block):
    block, out = numbered(*block), torch.full(shape, torch.nan)
    before = block.clone()
    assert tile_(out, block) is out
    assert torch.equal(out, reference(shape, block))
    assert torch.equal(block, before)


@settings(max_examples=100, deadline=None)
@given(*[st.integers(1, 17)] * 2, *[st.integers(1, 9)] * 2, st.booleans(), st.booleans())
def test_index_arithmetic_agrees_on_any_size(rows, columns, height, width, turned, turned_block):
    block = numbered(width, height).T if turned_block else numbered(height, width)
    out = torch.full((columns, rows), torch.nan).T if turned else torch.full((rows, columns), torch.nan)
    assert torch.equal(tile_(out, block), reference((rows, columns), block))


@EACH
def test_destinations_that_are_views(shape, block):
    """Every other number of a larger tensor, which itself stands the other way round."""
    block = numbered(*block)
    memory = torch.full([2 * size + 1 for size in reversed(shape)], torch.nan)
    out = memory.permute(*reversed(range(len(shape))))[tuple(slice(1, None, 2) for _ in shape)]
    assert not out.is_contiguous() or out.numel() == 1
    tile_(out, block)
    assert torch.equal(out, reference(shape, block))
    assert memory.isfinite().sum() == out.numel()


def test_memory_order_of_images():
    out = torch.empty(7, 11, 2, 3).contiguous(memory_format=torch.channels_last)
    tile_(out, numbered(3, 5, 2, 3))
    assert torch.equal(out, reference((7, 11, 2, 3), numbered(3, 5, 2, 3)))
    assert out.is_contiguous(memory_format=torch.channels_last)


@EACH
def test_gradients_of_the_block(shape, block):
    leaf = torch.randn(block, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    result, expected = tile_(torch.empty(shape, dtype=torch.float64), leaf), reference(shape, leaf)
    assert_close(result, expected, 0)
    assert_same_gradients(result, expected, [leaf])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_of_the_destination(dtype):
    out = tile_(torch.empty(5, 7, dtype=dtype), numbered(2, 3) / 3)
    assert out.dtype == dtype
    assert torch.equal(out, reference((5, 7), numbered(2, 3) / 3).to(dtype))


def test_literal_values():
    block = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert tile_(torch.empty(3, 5), block).tolist() == [[1, 2, 3, 1, 2], [4, 5, 6, 4, 5], [1, 2, 3, 1, 2]]
    assert tile_(torch.empty(1, 2), block).tolist() == [[1, 2]]
    assert tile_(torch.empty(5), torch.tensor([1.0, 2.0, 3.0])).tolist() == [1, 2, 3, 1, 2]
