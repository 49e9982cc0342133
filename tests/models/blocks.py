"""Blocks of a decoder that are written into parameters."""

import math

import torch
from ghn_pyg.models.decoding import fill_


def numbered(*shape):
    return torch.arange(1.0, 1 + math.prod(shape)).view(shape)


def filled(spec, block, seed=None):
    out = torch.full(spec.shape, torch.nan)
    before = block.clone()
    assert fill_(out, spec, block, seed) is out
    assert torch.equal(block, before)
    assert out.isfinite().all()
    return out
