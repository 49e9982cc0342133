import zlib

import pytest
import torch

from ghn_pyg.models.class_tokens import draw_class_tokens


def test_rows_come_from_the_seed_and_the_name():
    state = torch.get_rng_state()
    rows = draw_class_tokens("p", 2, 5, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch.Generator().manual_seed(3 + zlib.crc32(b"p"))
    assert torch.equal(rows, torch.randn(2, 5, generator=generator) * 0.02)
    assert torch.equal(rows, draw_class_tokens("p", 2, 5, seed=3))
    assert (rows != draw_class_tokens("p", 2, 5, seed=5)).all()
    assert (rows != draw_class_tokens("q", 2, 5, seed=3)).all()


def test_rows_without_a_seed_come_from_the_global_generator():
    torch.manual_seed(3)
    rows = draw_class_tokens("p", 10_000, 3)
    torch.manual_seed(3)
    assert torch.equal(draw_class_tokens("p", 10_000, 3), rows)
    assert rows.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(rows.mean().item()) < 1e-3


@pytest.mark.parametrize("seed", [0, -1, 2**31, 2**63, 2**64 - 1])
def test_all_seeds_of_pytorch(seed):
    assert draw_class_tokens("p", 1, 7, seed).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_does_not_matter(dtype):
    expected = draw_class_tokens("p", 2, 5, seed=3)
    torch.set_default_dtype(dtype)
    try:
        rows = draw_class_tokens("p", 2, 5, seed=3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, expected)


@pytest.mark.parametrize("seed", [None, 3])
def test_the_default_device_does_not_matter(seed):
    """The device without memory stands in for a GPU."""
    with torch.device("meta"):
        assert draw_class_tokens("p", 2, 5, seed).isfinite().all()
