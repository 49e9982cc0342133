"""Learned positions."""

import zlib

import pytest
import torch
from ghn_pyg.models.decoding import fill_

from ghn_pyg import ParamSpec
from tests.models.blocks import filled, numbered


def test_positions():
    """Token t has the numbers of place t of the flattened map, tiled along the channels and the tokens."""
    block = numbered(1, 3, 2, 2)
    rows = [[1, 5, 9, 1, 5], [2, 6, 10, 2, 6], [3, 7, 11, 3, 7], [4, 8, 12, 4, 8]]
    assert filled(ParamSpec("p", (1, 4, 5), "position"), block)[0].tolist() == rows
    assert filled(ParamSpec("p", (4, 5), "position"), block).tolist() == rows
    assert filled(ParamSpec("p", (4, 2), "position"), block).tolist() == [[1, 5], [2, 6], [3, 7], [4, 8]]
    assert filled(ParamSpec("p", (7, 5), "position"), block).tolist() == rows + rows[:3]


def test_positions_in_the_form_of_a_map():
    block = numbered(1, 3, 2, 5)
    out = filled(ParamSpec("p", (1, 7, 2, 5), "position"), block)
    assert out.shape == (1, 7, 2, 5)
    for channel in range(7):
        assert torch.equal(out[0, channel], block[0, channel % 3])


@pytest.mark.parametrize("shape", [(1, 11, 5), (11, 5)])
def test_rows_of_class_tokens_come_from_the_seed(shape):
    spec = ParamSpec("p", shape, "position", extra_rows=2)
    state = torch.get_rng_state()
    first, second, other = (filled(spec, numbered(1, 7, 3, 3), seed).view(11, 5) for seed in (3, 3, 5))
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch.Generator().manual_seed(3 + zlib.crc32(b"p"))
    torch.testing.assert_close(first[:2], torch.randn(2, 5, generator=generator) * 0.02, rtol=0, atol=0)
    assert torch.equal(second, first)
    assert (other[:2] != first[:2]).all()
    assert first[2].tolist() == [1, 10, 19, 28, 37]
    assert torch.equal(other[2:], first[2:])


def test_rows_of_class_tokens_depend_on_the_name():
    specs = [ParamSpec(name, (1, 5, 7), "position", extra_rows=1) for name in ("p", "q")]
    first, other = (filled(spec, numbered(1, 7, 2, 2), seed=3) for spec in specs)
    assert (first[0, 0] != other[0, 0]).all()
    assert torch.equal(first[0, 1:], other[0, 1:])


def test_rows_of_class_tokens_without_a_seed():
    spec = ParamSpec("p", (1, 10_001, 3), "position", extra_rows=10_000)
    torch.manual_seed(3)
    first = filled(spec, numbered(1, 3, 1, 1))
    torch.manual_seed(3)
    assert torch.equal(filled(spec, numbered(1, 3, 1, 1)), first)
    rows = first[0, :10_000]
    assert rows.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(rows.mean().item()) < 1e-3


@pytest.mark.parametrize("seed", [0, -1, 2**31, 2**63])
def test_seeds_that_pytorch_takes(seed):
    filled(ParamSpec("p", (1, 5, 7), "position", extra_rows=1), numbered(1, 7, 2, 2), seed)


def test_the_largest_seed_that_pytorch_takes():
    torch.Generator().manual_seed(2**64 - 1)
    filled(ParamSpec("p", (1, 5, 7), "position", extra_rows=1), numbered(1, 7, 2, 2), 2**64 - 1)


@pytest.mark.parametrize("seed", [None, 3])
def test_rows_of_class_tokens_whatever_the_default_device(seed):
    """As after ``torch.set_default_device("cuda")``."""
    out = torch.full((1, 5, 7), torch.nan)
    with torch.device("meta"):
        fill_(out, ParamSpec("p", (1, 5, 7), "position", extra_rows=1), torch.ones(1, 7, 2, 2, device="cpu"), seed)
    assert out.isfinite().all()
